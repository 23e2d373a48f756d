//! The terminal view (`lifetrace top`): what lives now, while its recording is being made.
//!
//! [`model`] takes the steps of a recording and gives a [`picture`] of any moment; it keeps what lives and counts of the rest, so its memory
//! does not grow with time. The view draws a picture, keys change what is looked at, and neither knows where a picture comes from.

mod census;
mod detail;
pub mod model;
mod names;
pub mod picture;
mod recent;
mod rows;
mod suspicion;
mod tally;
mod told;

pub use names::{SiteId, SiteName};
pub use told::{Ended, Paid, short};
#[cfg(feature = "top")]
pub mod state;
#[cfg(feature = "top")]
pub mod terminal;
#[cfg(feature = "top")]
pub mod view;

#[cfg(test)]
mod tests;
