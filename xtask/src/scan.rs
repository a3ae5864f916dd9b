// SPDX-License-Identifier: MIT OR Apache-2.0
//! Searches the kernel's console log for warnings, oopses and stalls.

/// The line that the init writes before it loads the module. Warnings of the stock kernel before
/// this line do not count.
pub const BEGIN: &str = "xtask: begin";

/// Words in a kernel's reports about its own state.
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
    "ODEBUG:",
    "inconsistent lock state",
    "inversion dependency detected",
    "Invalid wait context",
    "held when returning to user space",
    "locking correctness validator",
    "suspected memory leaks",
    "leak detector disabled",
    "xtask: trouble:",
];

/// How many lines are shown before the first report, and from it on.
const BEFORE: usize = 3;
const AFTER: usize = 60;

/// Returns the part of a console log around the first report, or `None` if there is no report.
pub fn trouble(console: &str) -> Option<String> {
    let lines: Vec<&str> = console
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    let begin = lines
        .iter()
        .position(|line| line.contains(BEGIN))
        .map_or(0, |at| at + 1);
    // Before the mark only a panic counts: the module does not cause the other warnings.
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

/// Returns the last lines of a console log.
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
    fn only_reports_after_the_mark_count() {
        let calm = "WARNING: of the stock kernel\r\n[1.0] xtask: begin\r\n[1.1] bus1: loaded\r\n";
        assert_eq!(trouble(calm), None);
        let warned = format!("{calm}[2.0] WARNING: CPU: 0 PID: 7 at lib/x.c:3\r\n[2.0] more\r\n");
        let shown = trouble(&warned).unwrap();
        assert!(shown.contains("lib/x.c:3") && shown.contains("more") && !shown.contains('\r'));
    }

    #[test]
    fn what_the_init_finds_counts() {
        let calm = "[1.0] xtask: begin\n[1.1] bus1: loaded\n";
        let found = format!("{calm}[9.0] xtask: trouble: lockdep is switched off\n");
        assert!(trouble(&found).is_some());
        let found = format!("{calm}[9.0] kmemleak: 2 new suspected memory leaks (see x)\n");
        assert!(trouble(&found).is_some());
    }

    #[test]
    fn a_panic_at_boot_counts() {
        assert!(trouble("[0.5] Kernel panic - not syncing: no init\n").is_some());
    }
}
