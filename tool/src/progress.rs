// SPDX-License-Identifier: MIT OR Apache-2.0

//! The progress of the work on stderr: a bar on a terminal, a line for each tenth elsewhere.

use std::fmt;
use std::io;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// Returns whether stderr is a terminal on which a line can be drawn again. A serial line does not
/// know its width.
fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !dumb && rustix::termios::tcgetwinsize(io::stderr()).is_ok_and(|size| size.ws_col > 0)
}

/// The progress of the work.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    tenth: u64,
}

impl Progress {
    /// Begins with nothing done of so many deliveries.
    pub fn new(total: u64) -> Self {
        let bar = can_draw().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:24} {percent:>3}%  {human_pos} of {human_len}  {rate}/s  {eta}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
                // It cannot fail: it is written to a string.
                let _ = write!(to, "{}", HumanCount(state.per_sec() as u64));
            });
            ProgressBar::new(total).with_style(style)
        });
        Self {
            bar,
            total,
            tenth: 0,
        }
    }

    /// Shows that so many are done.
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
