// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for trouble in the kernel's console: warnings, oopses, stalls.

/// The init writes this before it loads the module; what the stock kernel says before is its own.
pub const BEGIN: &str = "xtask: begin";

/// Beginnings of reports of the kernel about itself.
const TROUBLE: &[&str] = &[
    "BUG:",
    "BUG at",
    "BUG unable",
    "WARNING:",
    "WARNING at",
    "Oops:",
    "Kernel panic",
    "general protection fault",
    "double fault",
    "Call Trace",
    "kernel stack overflow",
    "rust_kernel: panicked",
    "refcount_t:",
    "UBSAN:",
    "KFENCE",
    "KASAN",
    "list_add corruption",
    "list_del corruption",
    "scheduling while atomic",
    "sleeping function called",
    "possible recursive locking",
    "possible circular locking",
    "suspicious RCU usage",
    "detected stall",
    "self-detected stall",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "Bad page state",
    "Bad rss-counter",
    "Out of memory:",
    "Unknown symbol",
    "disagrees about version of symbol",
    "leaked",
];

/// Lines shown before and after the first line of trouble.
const BEFORE: usize = 3;
const AFTER: usize = 60;

/// The part of a console log to show if there is trouble in it.
pub fn trouble(console: &str) -> Option<String> {
    let lines: Vec<&str> = console
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    let begin = lines
        .iter()
        .position(|line| line.contains(BEGIN))
        .map_or(0, |at| at + 1);
    // A kernel that dies before the mark is in trouble too, but its other warnings are not ours.
    let early = lines[..begin]
        .iter()
        .position(|line| line.contains("Kernel panic"));
    let late = || {
        let found = |line: &&str| TROUBLE.iter().any(|word| line.contains(word));
        lines[begin..].iter().position(found).map(|at| at + begin)
    };
    let at = early.or_else(late)?;
    let end = lines.len().min(at + AFTER);
    Some(lines[at.saturating_sub(BEFORE)..end].join("\n"))
}

/// The last lines of a console log.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_after_the_mark_counts() {
        let calm = "WARNING: of the stock kernel\r\n[1.0] xtask: begin\r\n[1.1] bus1: loaded\r\n";
        assert_eq!(trouble(calm), None);
        let warned = format!("{calm}[2.0] WARNING: CPU: 0 PID: 7 at lib/x.c:3\r\n[2.0] more\r\n");
        let shown = trouble(&warned).unwrap();
        assert!(shown.contains("lib/x.c:3") && shown.contains("more") && !shown.contains('\r'));
    }

    #[test]
    fn a_panic_at_boot_counts() {
        assert!(trouble("[0.5] Kernel panic - not syncing: no init\n").is_some());
    }
}
