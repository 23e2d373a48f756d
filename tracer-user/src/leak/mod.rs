//! Leaks: what is alive at the end of a recording and will never end, how sure that is, and what to do about it.
//!
//! [`tally`] keeps who lives on and where it blocks, [`growth`] tests whether there are ever more of them, [`verdict`] says what follows, [`fingerprint`] makes
//! one leak one line over builds and hosts, [`advice`] knows the common shapes. [`proof`] is what Go's own collector proved.
//! [`gate`] knows what was decided before: [`baseline`] and [`ignore`].
//! In test binaries [`tests`] knows under which test a goroutine was born, and [`singletons`] what a library keeps beyond it.

pub mod advice;
pub mod baseline;
pub mod fingerprint;
pub mod gate;
pub mod growth;
pub mod ignore;
pub mod proof;
pub mod singletons;
pub mod tally;
pub mod tests;
mod threads;
pub mod verdict;
