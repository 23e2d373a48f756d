//! What one hit of an empty probe costs on this machine, measured on ourselves.

use std::{fs, io, path::Path, time::Instant};

use aya::programs::uprobe::UProbeScope;

use super::{KernelError, multi::Point, session::Session};

const ROUNDS: usize = 5;
const HITS: u32 = 1_000;

/// The place that is probed: one `nop`, an instruction that the kernel emulates like those that Go binaries are probed on.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn calibration_site() {
    core::arch::naked_asm!("nop", "ret");
}

/// Nanoseconds a hit: the median of several rounds, less what the bare call costs.
pub fn hit_cost_ns(session: &mut Session) -> Result<u64, KernelError> {
    let offset = file_offset(calibration_site as *const () as usize).map_err(KernelError::io("own mapping"))?;
    let bare = median_round();
    let point = Point { file_offset: offset, cookie: 0, ref_counter: 0 };
    let link = session.attach_points("empty", Path::new("/proc/self/exe"), &[point], UProbeScope::CallingProcess)?;
    let probed = median_round();
    // The kernel takes its time to remove a probe; the target need not wait for it.
    std::thread::spawn(move || drop(link));
    Ok(probed.saturating_sub(bare))
}

fn median_round() -> u64 {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..HITS {
                std::hint::black_box(calibration_site)();
            }
            started.elapsed().as_nanos() as u64 / u64::from(HITS)
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// File offset of an address of our own text, by `/proc/self/maps`.
fn file_offset(address: usize) -> io::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    maps.lines()
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
            (start..end).contains(&address).then(|| offset + (address - start) as u64)
        })
        .ok_or_else(|| io::Error::other("the calibration site is not mapped"))
}
