// SPDX-License-Identifier: MIT OR Apache-2.0

//! The README shows the examples that are compiled and run.

const README: &str = include_str!("../../README.md");
const TWO_PROCESSES: &str = include_str!("../examples/two_processes.rs");

/// Returns the code of an example, without the comments at its head.
fn code(example: &str) -> &str {
    let start = example
        .find("\nuse ")
        .expect("an example imports something");
    &example[start + 1..]
}

#[test]
fn the_first_program_is_the_example() {
    let blocks: Vec<&str> = README.split("```rust,no_run\n").skip(1).collect();
    let [block] = blocks[..] else {
        panic!("the README has {} programs, not one", blocks.len());
    };
    let (shown, _) = block.split_once("```\n").expect("the block ends");
    assert_eq!(shown, code(TWO_PROCESSES));
}
