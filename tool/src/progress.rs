// SPDX-License-Identifier: MIT OR Apache-2.0

//! How far the work is: a bar on a terminal, a line for each tenth elsewhere. On stderr.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// How far the work is.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    tenth: u64,
}

impl Progress {
    /// Begins with nothing done of so many deliveries.
    pub fn new(total: u64) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = (io::stderr().is_terminal() && !dumb).then(|| {
            let style = ProgressStyle::with_template(
                "{bar:40} {percent:>3}%  {human_pos} of {human_len} deliveries  {per_sec}  {eta}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style)
        });
        Self {
            bar,
            total,
            tenth: 0,
        }
    }

    /// So many are done.
    pub fn show(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let tenth = (u128::from(done) * 10 / u128::from(self.total.max(1))) as u64;
        if tenth > self.tenth {
            self.tenth = tenth;
            eprintln!("{}% of {} deliveries", tenth * 10, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
