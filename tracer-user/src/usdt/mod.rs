//! USDT probes: places that a program's authors have marked for tracers, with names and arguments.
//!
//! Each stands in the ELF note `.note.stapsdt` of the executable or library ([`object`]); [`argument`] reads what its notes say of
//! arguments, [`registers`] knows their names, [`spec`] makes of them what the BPF side can follow, and [`table`] says which probes
//! mean that a unit of work starts, blocks, wakes or ends. Knows nothing of processes and of the kernel.
//!
//! Source: <https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>.

pub mod argument;
pub mod object;
pub mod registers;
pub mod spec;
pub mod table;

pub use argument::{Argument, Operand};
pub use object::{Probe, Semaphore, UsdtError, UsdtObject};
pub use table::{Mapping, Table};
