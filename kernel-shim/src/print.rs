// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `pr_*` macros, on the crate `log`: an application that installs no
//! logger sees nothing.
//!
//! The kernel's callers end a message with a newline; it is taken off here,
//! since a logger adds its own.

#[doc(hidden)]
pub use log::Level as __Level;

#[doc(hidden)]
pub fn __emit(level: log::Level, module: &str, args: core::fmt::Arguments<'_>) {
    if log::log_enabled!(target: module, level) {
        let text = args.to_string();
        log::log!(target: module, level, "{}", text.trim_end_matches('\n'));
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __print {
    ($level:ident, $($arg:tt)*) => {
        $crate::print::__emit(
            $crate::print::__Level::$level,
            ::core::module_path!(),
            ::core::format_args!($($arg)*),
        )
    };
}

/// Logs a message: the system is unusable.
#[macro_export]
macro_rules! pr_emerg {
    ($($arg:tt)*) => {
        $crate::__print!(Error, $($arg)*)
    };
}

/// Logs a message: action must be taken at once.
#[macro_export]
macro_rules! pr_alert {
    ($($arg:tt)*) => {
        $crate::__print!(Error, $($arg)*)
    };
}

/// Logs a message: critical condition.
#[macro_export]
macro_rules! pr_crit {
    ($($arg:tt)*) => {
        $crate::__print!(Error, $($arg)*)
    };
}

/// Logs a message: error condition.
#[macro_export]
macro_rules! pr_err {
    ($($arg:tt)*) => {
        $crate::__print!(Error, $($arg)*)
    };
}

/// Logs a message: warning.
#[macro_export]
macro_rules! pr_warn {
    ($($arg:tt)*) => {
        $crate::__print!(Warn, $($arg)*)
    };
}

/// Logs a message: a normal, significant condition.
#[macro_export]
macro_rules! pr_notice {
    ($($arg:tt)*) => {
        $crate::__print!(Info, $($arg)*)
    };
}

/// Logs a message: information.
#[macro_export]
macro_rules! pr_info {
    ($($arg:tt)*) => {
        $crate::__print!(Info, $($arg)*)
    };
}

/// Logs a message: for debugging.
#[macro_export]
macro_rules! pr_debug {
    ($($arg:tt)*) => {
        $crate::__print!(Debug, $($arg)*)
    };
}

#[cfg(test)]
mod tests {
    use std::{string::String, sync::Mutex, vec::Vec};

    struct Collect(Mutex<Vec<(log::Level, String)>>);

    impl log::Log for Collect {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target().ends_with("print::tests")
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let line = (record.level(), std::format!("{}", record.args()));
                self.0.lock().unwrap().push(line);
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_message_reaches_the_logger_without_its_newline() {
        static COLLECT: Collect = Collect(Mutex::new(Vec::new()));
        log::set_logger(&COLLECT).unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let n = 3;
        pr_err!("three is {n}\n");
        pr_info!("{} and {}", 1, 2);
        pr_debug!("not at this level\n");
        let lines = COLLECT.0.lock().unwrap();
        let expected = [
            (log::Level::Error, "three is 3".into()),
            (log::Level::Info, "1 and 2".into()),
        ];
        assert_eq!(*lines, expected);
    }
}
