// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots the stock kernel in a VM, loads the module and runs one command there.
//!
//! Four serial ports keep four things apart: the kernel's console, the command's output, its
//! errors, and its exit status. So no program can be mistaken for the kernel or for its own
//! verdict, and output is passed on byte for byte.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::initramfs::{self, Settings};
use crate::kernel::{Build, Kernel};
use crate::{repo, run, scan};

/// Memory of the VM.
const MEMORY: &str = "4G";
/// How long a kernel that has nothing to do may take under KVM before it counts as dead there.
const PROBE: Duration = Duration::from_secs(30);
/// How long a command may take unless it is told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// `xtask vm` exits with this if the time is up, like `timeout`.
const TIMED_OUT: u8 = 124;

/// What to run.
pub struct Job {
    pub command: Vec<String>,
    /// Files and folders for the directory in which the command runs.
    pub copies: Vec<PathBuf>,
    /// bus1.ko, or none for the bare kernel.
    pub module: Option<PathBuf>,
    /// Parameters for it, as NAME=VALUE.
    pub params: Vec<String>,
    /// Modules of the kernel package.
    pub modprobe: Vec<String>,
    pub cpus: Option<u32>,
    /// Count instructions as time.
    pub icount: bool,
    /// QEMU's name of an emulated CPU, in place of the one that can do most.
    pub cpu: Option<&'static str>,
    /// Return the output and pass none of it on.
    pub quiet: bool,
    pub timeout: Duration,
}

impl Job {
    /// Nothing to run yet, with the usual settings.
    pub fn new(module: Option<PathBuf>) -> Job {
        Job {
            command: Vec::new(),
            copies: Vec::new(),
            module,
            params: Vec::new(),
            modprobe: Vec::new(),
            cpus: None,
            icount: false,
            cpu: None,
            quiet: false,
            timeout: TIMEOUT,
        }
    }
}

/// How it went.
pub struct Outcome {
    pub end: End,
    /// What the command wrote to its output; its errors are not in it.
    pub output: String,
    /// The part of the console with a warning or worse.
    pub trouble: Option<String>,
}

/// How the VM came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The command exited; 128 and more stand for signals.
    Exit(u8),
    /// A module could not be loaded.
    NotLoaded,
    /// The VM ended on its own without a word.
    Died,
    /// The time was up.
    TimedOut,
}

impl Outcome {
    /// Whether the command succeeded and the kernel was content.
    pub fn is_ok(&self) -> bool {
        self.end == End::Exit(0) && self.trouble.is_none()
    }

    /// The status to exit with: the command's own unless something else went wrong.
    pub fn exit_code(&self) -> ExitCode {
        match self.end {
            End::TimedOut => ExitCode::from(TIMED_OUT),
            End::Exit(status) if self.trouble.is_none() || status != 0 => ExitCode::from(status),
            _ => ExitCode::FAILURE,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

/// Runs a job, and passes its output and its errors on as they come. What is wrong is said on
/// stderr before this returns.
pub fn run(kernel: &Kernel, job: &Job) -> Result<Outcome> {
    boot(kernel, job, accelerator(kernel, job)?, true)
}

/// Runs a job that has to cause trouble: passes nothing on, and says nothing.
pub fn run_silently(kernel: &Kernel, job: &Job) -> Result<Outcome> {
    boot(kernel, job, accelerator(kernel, job)?, false)
}

fn accelerator(kernel: &Kernel, job: &Job) -> Result<Accelerator> {
    if job.icount {
        Ok(Accelerator::Tcg)
    } else {
        probe(kernel)
    }
}

/// Finds out whether the kernel really boots under KVM. The answer is kept until this machine
/// boots anew: some machines offer KVM and cannot run a stock kernel in it.
fn probe(kernel: &Kernel) -> Result<Accelerator> {
    let usable = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !usable {
        return Ok(Accelerator::Tcg);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = format!("{} on {boot_id}", kernel.identity());
    let answer = kernel.output_dir()?.join("kvm");
    for (word, accelerator) in [("yes", Accelerator::Kvm), ("no", Accelerator::Tcg)] {
        if repo::stamp_is(&answer, &format!("{word}: {key}")) {
            return Ok(accelerator);
        }
    }
    let job = Job {
        command: vec!["true".into()],
        timeout: PROBE,
        ..Job::new(None)
    };
    let works = run::step("see whether the kernel boots under KVM", |_| {
        Ok(boot(kernel, &job, Accelerator::Kvm, false)?.end == End::Exit(0))
    })?;
    let word = if works { "yes" } else { "no" };
    run::say(if works {
        "the VM runs under KVM"
    } else {
        "it does not: the VM is emulated"
    });
    repo::write_whole(&answer, format!("{word}: {key}").as_bytes())?;
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

fn boot(kernel: &Kernel, job: &Job, accelerator: Accelerator, loud: bool) -> Result<Outcome> {
    let dir = tempfile::Builder::new()
        .prefix("vm-")
        .tempdir_in(repo::cache_dir("run")?)
        .context("cannot make a folder for the VM")?;
    let console = dir.path().join("console");
    let status = dir.path().join("status");
    let initrd = dir.path().join("initrd");
    let settings = Settings {
        terminal: if loud { terminal() } else { None },
        checkers: kernel.build == Build::Debug,
    };
    initramfs::write(&initrd, kernel, job, &settings)?;

    let mut command = qemu(kernel, job, accelerator)?;
    command
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(&initrd);
    for (id, path) in [
        ("console", console.as_path()),
        ("out", "/proc/self/fd/1".as_ref()),
        ("status", &status),
        ("err", "/proc/self/fd/2".as_ref()),
    ] {
        let path = path
            .to_str()
            .context("the repository's path is not UTF-8")?;
        ensure!(
            !path.contains(','),
            "QEMU takes no comma in the repository's path"
        );
        command.args(["-chardev", &format!("file,id={id},path={path}")]);
        command.args(["-serial", &format!("chardev:{id}")]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run QEMU")?;
    let out = child.stdout.take().context("no output of QEMU")?;
    let err = child.stderr.take().context("no errors of QEMU")?;
    let (ended, output) = thread::scope(|scope| {
        let out = scope.spawn(move || pass(out, std::io::stdout(), loud && !job.quiet));
        scope.spawn(move || pass(err, std::io::stderr(), loud));
        let ended = wait(&mut child, job.timeout);
        (ended, out.join().unwrap_or_default())
    });
    let ended = ended.context("cannot wait for QEMU")?;

    let said = fs::read_to_string(&status).unwrap_or_default();
    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let end = match ended {
        None => End::TimedOut,
        Some(_) => parse_status(&said),
    };
    let outcome = Outcome {
        end,
        output: String::from_utf8_lossy(&output).into_owned(),
        trouble: scan::trouble(&console),
    };
    if loud {
        let log = kernel.output_dir()?.join("console.log");
        repo::write_whole(&log, console.as_bytes())?;
        explain(&outcome, &said, job, &console, &log);
    }
    Ok(outcome)
}

/// Says on stderr what is wrong beside the command itself.
fn explain(outcome: &Outcome, said: &str, job: &Job, console: &str, log: &Path) {
    let log = log.display();
    match outcome.end {
        End::Exit(_) => (),
        End::NotLoaded => {
            eprintln!(
                "error: the kernel refused a module ({}); its console ends:",
                said.trim()
            );
            eprintln!("{}", scan::tail(console));
        }
        End::Died => {
            eprintln!("error: the VM ended without a word; its console ({log}) ends:");
            eprintln!("{}", scan::tail(console));
        }
        End::TimedOut => {
            let seconds = job.timeout.as_secs();
            eprintln!(
                "error: the VM was stopped after {seconds} s, before the command ended \
                 (--timeout allows more); its console ({log}) ends:"
            );
            eprintln!("{}", scan::tail(console));
        }
    }
    if let Some(trouble) = &outcome.trouble {
        eprintln!("error: the kernel reported trouble; from its console ({log}):");
        eprintln!("{trouble}");
    }
}

fn qemu(kernel: &Kernel, job: &Job, accelerator: Accelerator) -> Result<Command> {
    // The root's own QEMU: those before 8.1 can run stale code after the kernel patched itself
    // while another CPU was about to run it, which shows as an `int3` oops.
    let mut command = kernel.root.program("/usr/bin/qemu-system-x86_64");
    for firmware in ["/usr/share/qemu", "/usr/share/seabios"] {
        command.arg("-L").arg(kernel.root.outside(firmware));
    }
    command.args([
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-M",
        "q35",
        "-m",
        MEMORY,
    ]);
    let emulated = job.cpu.unwrap_or("max");
    let mut append = "console=ttyS0 loglevel=7 panic=-1 oops=panic".to_owned();
    if kernel.build == Build::Debug {
        // With five levels of page tables an interrupt during the detection of the first CPU makes
        // KASAN report a valid address, and its first report switches lockdep off.
        append += " no5lvl";
    }
    let cpus = if job.icount {
        ensure!(
            job.cpus.unwrap_or(1) == 1,
            "time as a count of instructions needs one CPU"
        );
        command.args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0",
            "-cpu",
            emulated,
        ]);
        // Whatever else could make two runs differ.
        command.args(["-seed", "1", "-rtc", "base=2030-01-01,clock=vm"]);
        append += " nokaslr";
        1
    } else {
        match accelerator {
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", emulated]),
        };
        job.cpus.unwrap_or(2)
    };
    command.args(["-smp", &cpus.to_string(), "-append", &append]);
    Ok(command)
}

/// Columns and lines of the terminal that our own output goes to, if it does.
fn terminal() -> Option<(u16, u16)> {
    if !std::io::stdout().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Copies all that comes, and returns it.
fn pass(mut from: impl Read, mut to: impl Write, loud: bool) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => {
                all.extend_from_slice(&buffer[..n]);
                if loud {
                    // Nobody to read it is no reason to stop the command.
                    let _ = to.write_all(&buffer[..n]).and_then(|()| to.flush());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(_) => return all,
        }
    }
}

/// Waits for the end, or makes one when the time is up; then there is no status.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the init said last.
fn parse_status(said: &str) -> End {
    let mut words = said.split_whitespace();
    match (words.next(), words.next().map(str::parse)) {
        (Some("exit"), Some(Ok(status))) => End::Exit(status),
        (Some("insmod"), _) => End::NotLoaded,
        _ => End::Died,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_the_init_is_read() {
        assert_eq!(parse_status("exit 0\r\n"), End::Exit(0));
        assert_eq!(parse_status("exit 137\n"), End::Exit(137));
        assert_eq!(parse_status("insmod bus1.ko\n"), End::NotLoaded);
        assert_eq!(parse_status(""), End::Died);
        assert_eq!(parse_status("exit"), End::Died);
    }
}
