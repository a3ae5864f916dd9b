// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command as a user meets it, on the embedded host, which is everywhere.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn bus1(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bus1"));
    command.args(arguments).env_remove("BUS1_HOST");
    command
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = bus1(&["demo", "--host", "embedded"]);
    command.args(arguments);
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns its complaint; it has to fail with this status.
fn complaint(command: &mut Command, status: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_demo_runs_without_any_argument_but_the_host() {
    let output = demo(&[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = out(&output);
    assert!(text.contains("embedded host: 2 publishers and 3 subscribers, all of them threads"));
    assert!(text.ends_with("verdict: good\n"), "{text}");
}

#[test]
fn every_piece_reaches_every_subscriber_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, "one\ntwo\n\nlast").unwrap();
    let path = path.to_str().unwrap();
    let run = |more: &[&str]| {
        let output = demo(&["--input", path, "--publishers", "3", "--subscribers", "4"])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        out(&output)
    };
    // Each publisher adds one message that says it has ended.
    let lines = run(&["--rounds", "5"]);
    assert!(
        lines.contains("13 bytes in 4 pieces (lines), 5 times"),
        "{lines}"
    );
    assert!(lines.contains("23 multicasts of 23 expected"), "{lines}");
    assert!(
        lines.contains("92 messages of 92 expected, to 4 subscribers"),
        "{lines}"
    );
    assert!(lines.contains("92 of 92 right"), "{lines}");
    let blocks = run(&["--rounds", "1", "--block", "5"]);
    assert!(blocks.contains("6 multicasts of 6 expected"), "{blocks}");
}

#[test]
fn many_large_pieces_get_through_the_quota() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks");
    std::fs::write(&path, vec![0xa5; 8 << 20]).unwrap();
    let arguments = [
        "--block",
        "1M",
        "--rounds",
        "2",
        "--publishers",
        "4",
        "--input",
    ];
    let output = demo(&arguments).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(out(&output).contains("20 multicasts of 20 expected"));
}

#[test]
fn the_text_may_come_by_stdin() {
    let mut child = demo(&["--input", "-", "--rounds", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a\nb\nc\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(out(&output).contains("text: stdin, 6 bytes in 3 pieces"));
}

#[test]
fn progress_is_shown_on_stderr() {
    let output = demo(&[]).output().unwrap();
    let news = String::from_utf8_lossy(&output.stderr);
    assert!(
        news.lines().any(|line| line.starts_with("100% of ")),
        "{news}"
    );
}

#[test]
fn bad_inputs_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = complaint(demo(&["--input"]).arg(&missing), 1);
    assert!(
        error.contains("cannot open the input") && error.contains("missing"),
        "{error}"
    );
    let error = complaint(demo(&["--input"]).arg(folder.path()), 1);
    assert!(error.contains("is a folder"), "{error}");
    let error = complaint(&mut demo(&["--input", "/dev/null"]), 1);
    assert!(error.contains("nothing to publish"), "{error}");
}

#[test]
fn bad_arguments_are_explained() {
    for wrong in [
        ["--publishers", "0"],
        ["--subscribers", "129"],
        ["--block", "0k"],
    ] {
        let error = complaint(&mut demo(&wrong), 2);
        assert!(error.contains("invalid value"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    std::fs::write(&path, vec![b'x'; 12 << 20]).unwrap();
    let error = complaint(demo(&["--block", "12M", "--input"]).arg(&path), 1);
    assert!(error.contains("take a smaller --block"), "{error}");
    let error = complaint(bus1(&["demo"]).env("BUS1_HOST", "toaster"), 1);
    assert!(
        error.contains("BUS1_HOST is kernel, embedded or auto"),
        "{error}"
    );
    let error = complaint(
        bus1(&["publisher", "--index", "0", "--directory", "3"]).stdin(Stdio::null()),
        1,
    );
    assert!(error.contains("for `bus1 demo` to start"), "{error}");
}

#[test]
fn without_the_module_the_kernel_host_is_refused() {
    if Path::new("/dev/bus1").exists() {
        let output = bus1(&["demo", "--host", "kernel"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(out(&output).contains("all of them processes"));
    } else {
        let error = complaint(&mut bus1(&["demo", "--host", "kernel"]), 1);
        assert!(error.contains("load the module"), "{error}");
    }
}

#[test]
fn an_interrupt_ends_it_and_says_so() {
    let mut child = demo(&["--rounds", "1000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it says something it watches for signals.
    let mut said = [0];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_signal_ends_it_while_it_waits_for_its_input() {
    let mut child = demo(&["--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // More than a pipe holds, so it is reading; and it does not know that no more comes.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // A shell has jobs in the background ignore SIGINT, and their children inherit that.
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // Otherwise this waits as long as the input is open.
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(15), "{status}");
    drop(input);
}

#[test]
fn info_names_the_host_and_its_limits() {
    let output = bus1(&["info", "--host", "embedded"]).output().unwrap();
    assert!(output.status.success());
    let text = out(&output);
    assert!(text.contains("embedded (inside the process"), "{text}");
    assert!(text.contains("bytes in flight"), "{text}");
}
