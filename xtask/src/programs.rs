pub fn demo(_: &crate::archive::Wanted, _: Vec<String>) -> anyhow::Result<std::process::ExitCode> { anyhow::bail!("todo") }
