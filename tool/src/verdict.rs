// SPDX-License-Identifier: MIT OR Apache-2.0

//! The verdict, and the figures.

use std::fmt;

use crate::directory::Directory;

/// The outcome of a demo.
pub struct Verdict {
    /// Multicasts that there should be.
    pub expected: u64,
    /// Multicasts that the publishers made.
    pub published: u128,
    /// Receipts of all subscribers together.
    pub delivered: u128,
    pub bytes: u128,
    pub damaged: u128,
    pub misplaced: u128,
    pub subscribers: usize,
    pub publishers: usize,
    /// True if all subscribers reported one order.
    pub one_order: bool,
    /// The fault of the order.
    pub fault: Option<String>,
    pub digest: u64,
    pub over_quota: u128,
    pub pool_full: u128,
    /// From the first send to the last receipt.
    pub seconds: f64,
}

impl Verdict {
    /// Judges the reports that the directory collected. The text should have made `expected`
    /// multicasts.
    pub fn new(directory: &Directory, expected: u64) -> Self {
        let comparison = &directory.comparison;
        let summaries: Vec<_> = directory.summaries.iter().flatten().collect();
        let done: Vec<_> = directory.done.iter().flatten().collect();
        let digests_agree = summaries
            .iter()
            .all(|summary| summary.digest == comparison.digest());
        let fault = if let Some(difference) = comparison.first_difference {
            let (expected, found) = (difference.expected, difference.found);
            Some(format!(
                "{} differences; the first: at position {} subscriber {} has message {} of \
                 publisher {}, another has message {} of publisher {}",
                comparison.differences,
                difference.position,
                difference.subscriber,
                found.sequence,
                found.publisher,
                expected.sequence,
                expected.publisher
            ))
        } else if comparison.gaps > 0 {
            Some("a report of a subscriber is missing".into())
        } else if !digests_agree {
            Some("digests differ".into())
        } else {
            None
        };
        let start = done.iter().map(|done| done.start).min().unwrap_or(0);
        let end = summaries
            .iter()
            .map(|summary| summary.end)
            .max()
            .unwrap_or(0);
        Self {
            expected,
            published: total(done.iter().map(|done| done.messages)),
            delivered: total(summaries.iter().map(|summary| summary.messages)),
            bytes: total(summaries.iter().map(|summary| summary.bytes)),
            damaged: total(summaries.iter().map(|summary| summary.damaged)),
            misplaced: total(summaries.iter().map(|summary| summary.misplaced))
                + u128::from(comparison.misplaced),
            subscribers: summaries.len(),
            publishers: done.len(),
            one_order: comparison.is_total(comparison.len()) && digests_agree,
            fault,
            digest: comparison.digest(),
            over_quota: total(done.iter().map(|done| done.over_quota)),
            pool_full: total(done.iter().map(|done| done.pool_full)),
            seconds: end.saturating_sub(start) as f64 / 1e9,
        }
    }

    /// Returns whether everything was published, everything arrived whole at everybody, and in one
    /// order.
    pub fn is_good(&self) -> bool {
        self.one_order
            && self.misplaced == 0
            && self.damaged == 0
            && self.published == u128::from(self.expected)
            && self.delivered == self.deliveries()
    }

    /// Returns the receipts that there should be.
    fn deliveries(&self) -> u128 {
        u128::from(self.expected) * self.subscribers as u128
    }
}

/// Returns the sum of numbers that workers report, and that may be anything. As many as there are
/// workers do not overflow it.
fn total(reported: impl Iterator<Item = u64>) -> u128 {
    reported.map(u128::from).sum()
}

/// Returns a number of things in words.
pub fn count(n: u64, thing: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{plural}")
}

/// Writes a line of the report.
fn line(f: &mut fmt::Formatter<'_>, name: &str, good: Option<bool>, text: &str) -> fmt::Result {
    let mark = match good {
        Some(true) => "ok ",
        Some(false) => "BAD",
        None => "   ",
    };
    writeln!(f, "{mark} {name:<11} {text}")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.deliveries();
        line(
            f,
            "published",
            Some(self.published == u128::from(self.expected)),
            &format!(
                "{} multicasts of {} expected, by {}",
                self.published,
                self.expected,
                count(self.publishers as u64, "publisher")
            ),
        )?;
        line(
            f,
            "delivered",
            Some(self.delivered == wanted),
            &format!(
                "{} messages of {wanted} expected, to {}",
                self.delivered,
                count(self.subscribers as u64, "subscriber")
            ),
        )?;
        line(
            f,
            "sums",
            Some(self.damaged == 0),
            &format!(
                "{} of {} right",
                self.delivered.saturating_sub(self.damaged),
                self.delivered
            ),
        )?;
        let order = match &self.fault {
            None if self.one_order => format!(
                "the same at {}, digest {:016x}",
                count(self.subscribers as u64, "subscriber"),
                self.digest
            ),
            None => "subscribers saw different numbers of messages".into(),
            Some(fault) => fault.clone(),
        };
        line(f, "order", Some(self.one_order), &order)?;
        let own = match self.misplaced {
            0 => "every publisher's messages in its own order, none missing, none twice".into(),
            n => format!("{n} messages are not the next ones of their publisher"),
        };
        line(f, "publishers", Some(self.misplaced == 0), &own)?;

        let seconds = self.seconds.max(1e-9);
        line(
            f,
            "rate",
            None,
            &format!(
                "{:.0} multicasts/s, {:.0} deliveries/s, {:.1} MB/s delivered, in {:.2} s",
                self.published as f64 / seconds,
                self.delivered as f64 / seconds,
                self.bytes as f64 / 1e6 / seconds,
                self.seconds
            ),
        )?;
        line(
            f,
            "copies",
            None,
            &format!(
                "{} of {:.1} MB in all, taken as one for each message delivered: into the \
                 subscriber's pool, where it is read in place",
                self.delivered,
                self.bytes as f64 / 1e6
            ),
        )?;
        line(
            f,
            "back-off",
            None,
            &format!(
                "{} attempts repeated: {} over quota, {} with a full pool",
                self.over_quota + self.pool_full,
                self.over_quota,
                self.pool_full
            ),
        )?;
        let verdict = if self.is_good() { "good" } else { "BAD" };
        write!(f, "verdict: {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Verdict {
        Verdict {
            expected: 10,
            published: 10,
            delivered: 30,
            bytes: 3_400_000,
            damaged: 0,
            misplaced: 0,
            subscribers: 3,
            publishers: 2,
            one_order: true,
            fault: None,
            digest: 1,
            over_quota: 4,
            pool_full: 1,
            seconds: 0.5,
        }
    }

    #[test]
    fn a_good_one_says_so() {
        let text = good().to_string();
        assert!(good().is_good());
        assert!(text.ends_with("verdict: good"), "{text}");
        assert!(text.contains("60 deliveries/s"));
        assert!(text.contains("5 attempts repeated: 4 over quota, 1 with a full pool"));
        assert!(text.contains("copies      30 of 3.4 MB in all"), "{text}");
        assert!(!text.contains("BAD"));
    }

    #[test]
    fn reports_of_any_size_are_added_up() {
        let most = u64::MAX;
        assert_eq!(total([most, most, 2].into_iter()), 2 * u128::from(most) + 2);
        // In 64 bits they would add up to what is expected.
        let mut wrapped = good();
        wrapped.published = total([most, 11].into_iter());
        wrapped.delivered = total([most, most, 32].into_iter());
        let text = wrapped.to_string();
        assert!(!wrapped.is_good());
        assert_eq!(text.matches("BAD").count(), 3, "{text}");
    }

    #[test]
    fn each_fault_makes_it_bad() {
        let faults: [fn(&mut Verdict); 5] = [
            |verdict| verdict.published = 9,
            |verdict| verdict.delivered = 29,
            |verdict| verdict.damaged = 1,
            |verdict| verdict.misplaced = 1,
            |verdict| verdict.one_order = false,
        ];
        for fault in faults {
            let mut verdict = good();
            fault(&mut verdict);
            let text = verdict.to_string();
            assert!(!verdict.is_good());
            assert_eq!(text.matches("BAD").count(), 2, "{text}");
        }
    }
}
