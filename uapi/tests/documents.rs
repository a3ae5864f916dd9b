// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Statements of the documents about the interface: the example in docs/example.md compiles as it
//! stands there, and no name or number of the header is missing.

// The helpers for 32 bits serve the other test.
#[allow(dead_code)]
mod compiler;

use std::path::Path;

const HEADER: &str = include_str!("../include/linux/bus1.h");

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_example_compiles() {
    let text = document("example.md");
    let examples: Vec<&str> = text
        .split("```c\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 1, "examples in example.md");
    let program = compiler::build("example.c", examples[0], &["-std=gnu99", "-Wextra"]);
    assert!(program.exists());
}

#[test]
fn every_command_stands_in_the_table_with_its_number() {
    let text = document("abi.md");
    for (name, number) in [
        ("PEER_DISCONNECT", bus1_uapi::CMD_PEER_DISCONNECT),
        ("PEER_QUERY", bus1_uapi::CMD_PEER_QUERY),
        ("PEER_RESET", bus1_uapi::CMD_PEER_RESET),
        ("HANDLE_RELEASE", bus1_uapi::CMD_HANDLE_RELEASE),
        ("HANDLE_TRANSFER", bus1_uapi::CMD_HANDLE_TRANSFER),
        ("NODES_DESTROY", bus1_uapi::CMD_NODES_DESTROY),
        ("SLICE_RELEASE", bus1_uapi::CMD_SLICE_RELEASE),
        ("SEND", bus1_uapi::CMD_SEND),
        ("RECV", bus1_uapi::CMD_RECV),
        ("EXCHANGE", bus1_uapi::CMD_EXCHANGE),
        ("QUOTA", bus1_uapi::CMD_QUOTA),
    ] {
        let row = format!(
            "| [`BUS1_CMD_{name}`](#{}) | {number:#010x} |",
            name.to_lowercase()
        );
        assert!(text.contains(&row), "abi.md has no row {row}");
        let heading = format!("### {name}\n");
        assert!(text.contains(&heading), "abi.md does not describe {name}");
    }
}

#[test]
fn the_device_page_names_all_of_the_header() {
    let page = document("man/bus1.4");
    for line in HEADER.lines() {
        let name = if let Some(rest) = line.strip_prefix("#define BUS1_") {
            format!("BUS1_{}", rest.split_whitespace().next().unwrap())
        } else if let Some(rest) = line.strip_prefix("\t__") {
            let field = rest.split_whitespace().nth(1).unwrap();
            field.trim_end_matches(';').to_owned()
        } else {
            continue;
        };
        assert!(page.contains(&name), "bus1.4 does not name {name}");
    }
}
