//! ringtribe-bench
