//! Byte-level BPE for nanochat: train a vocabulary, encode, decode.
//!
//! The core (`split`, `train`, `encode`) is plain Rust without `unsafe`; `python` is the rim that
//! turns it into the module `rustbpe`. Test the core without Python: `cargo test`.

#![forbid(unsafe_code)]

pub mod batch;
pub mod encode;
pub mod error;
mod merge;
pub mod patterns;
#[cfg(feature = "python")]
mod python;
mod scan;
pub mod short;
pub mod split;
pub mod train;

use error::Error;

/// `requested`, or one thread for each core this process may use if that is 0.
pub fn thread_count(requested: usize) -> usize {
    match requested {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// A pool of its own for each call: a global one would hang in a forked process.
pub fn thread_pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(thread_count(threads)).build();
    pool.map_err(|e| Error::Threads { reason: e.to_string() })
}
