// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ending early at the user's wish: SIGINT, SIGTERM or SIGHUP once to tidy up, twice to end at
//! once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The user's wish for an end.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// The error that the user wants an end.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; all workers are ended")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Watches for signals from now on: they no longer end the program at once, so everything that
    /// waits has to [check](Self::check) now and then.
    pub fn watch() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order, so that the first signal does not end the program.
            flag::register_conditional_shutdown(signal, 130, interrupt.0.clone())
                .and_then(|_| flag::register(signal, interrupt.0.clone()))
                .context("cannot watch for signals")?;
        }
        Ok(interrupt)
    }

    /// Acts as the user's wish.
    #[cfg(test)]
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Fails if the user wants an end.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        Ok(())
    }
}
