// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sending to receivers that may be behind.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use bus1::{Error, SendError};

/// The first pause between two attempts.
const SHORTEST: Duration = Duration::from_micros(50);

/// The longest one.
const LONGEST: Duration = Duration::from_millis(5);

/// After so long a receiver is not expected to catch up any more.
const HOPELESS: Duration = Duration::from_secs(60);

/// Attempts that were refused, and made again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused {
    pub over_quota: u64,
    pub pool_full: u64,
}

/// Sends until it succeeds: what a slow receiver refuses is tried again after a pause, unless
/// `go_on` fails.
///
/// # Errors
///
/// That of `go_on`; those of `send`, except temporary ones; no receiver caught up in a minute.
pub fn send(
    refused: &mut Refused,
    go_on: impl Fn() -> Result<()>,
    send: impl Fn() -> Result<(), SendError>,
) -> Result<()> {
    let mut pause = SHORTEST;
    let mut begin = None;
    loop {
        let error = match send() {
            Ok(()) => return Ok(()),
            Err(error) if error.error().is_temporary() => error,
            Err(error) => return Err(error.into()),
        };
        match error.error() {
            Error::PoolFull => refused.pool_full += 1,
            _ => refused.over_quota += 1,
        }
        if begin.get_or_insert_with(Instant::now).elapsed() > HOPELESS {
            bail!(
                "no receiver caught up in {} s, or the limits are too low for this message: {error}",
                HOPELESS.as_secs()
            );
        }
        go_on()?;
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn refusals_are_counted_and_other_errors_end_it() {
        let left = Cell::new(3);
        let mut refused = Refused::default();
        let always = || Ok(());
        let result = send(&mut refused, always, || {
            match left.replace(left.get() - 1) {
                3 => Err(Error::Quota.into()),
                2 => Err(Error::PoolFull.into()),
                _ => Ok(()),
            }
        });
        assert!(result.is_ok());
        assert_eq!((refused.over_quota, refused.pool_full), (1, 1));
        assert!(send(&mut refused, always, || Err(Error::NodeDestroyed.into())).is_err());
    }

    #[test]
    fn it_is_given_up_when_the_caller_does() {
        let left = Cell::new(3);
        let go_on = || match left.replace(left.get() - 1) {
            0 => bail!("no more"),
            _ => Ok(()),
        };
        let mut refused = Refused::default();
        let error = send(&mut refused, go_on, || Err(Error::Quota.into())).unwrap_err();
        assert_eq!(error.to_string(), "no more");
        assert_eq!(refused.over_quota, 4);
    }
}
