//! What one hit costs on this machine: the trap by the instruction that carries the probe, measured on ourselves, and the program behind
//! it as the kernel's own clock tells.

use std::{fs, io, path::Path, time::Instant};

use aya::programs::uprobe::UProbeScope;

use super::{KernelError, multi::Point, session::Session};

const ROUNDS: usize = 5;
const HITS: u32 = 400;

/// Instructions that carry probes, each in a function of its own that does nothing else: its first one.
#[cfg(target_arch = "x86_64")]
mod sites {
    use core::arch::naked_asm;

    #[unsafe(naked)]
    pub extern "C" fn nop() {
        naked_asm!("nop", "ret");
    }

    #[unsafe(naked)]
    pub extern "C" fn push() {
        naked_asm!("push rbp", "pop rbp", "ret");
    }

    #[unsafe(naked)]
    pub extern "C" fn call() {
        naked_asm!("call 2f", "2: add rsp, 8", "ret");
    }

    #[unsafe(naked)]
    pub extern "C" fn jump() {
        naked_asm!("jmp 2f", "2: ret");
    }

    /// The kernel does not emulate it: it traps twice.
    #[unsafe(naked)]
    pub extern "C" fn stepped() {
        naked_asm!("mov eax, 1", "ret");
    }
}

/// What the trap of a probe costs, ns, by its instruction: with a program that does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traps {
    pub nop: u64,
    pub push: u64,
    pub call: u64,
    /// Jumps, conditional ones too.
    pub jump: u64,
    /// Everything that the kernel does not emulate.
    pub stepped: u64,
}

impl Traps {
    /// Measures each kind: the median of several rounds, less what the bare call costs.
    pub fn measure(session: &mut Session) -> Result<Self, KernelError> {
        let mut cost = |site| cost_ns(session, site);
        Ok(Self {
            nop: cost(sites::nop)?,
            push: cost(sites::push)?,
            call: cost(sites::call)?,
            jump: cost(sites::jump)?,
            stepped: cost(sites::stepped)?,
        })
    }

    /// Of a site whose instruction reads like that.
    pub fn of(&self, instruction: &str, emulated: bool) -> u64 {
        if !emulated {
            return self.stepped;
        }
        let mnemonic = instruction.split(' ').next().unwrap_or_default();
        match mnemonic {
            "push" => self.push,
            "call" => self.call,
            "nop" => self.nop,
            _ => self.jump,
        }
    }
}

fn cost_ns(session: &mut Session, site: extern "C" fn()) -> Result<u64, KernelError> {
    let offset = file_offset(site as *const () as usize).map_err(KernelError::io("own mapping"))?;
    let bare = median_round(site);
    let point = Point { file_offset: offset, cookie: 0, ref_counter: 0 };
    let link = session.attach_points("empty", Path::new("/proc/self/exe"), &[point], UProbeScope::CallingProcess)?;
    let probed = median_round(site);
    // The kernel takes its time to remove a probe; the target need not wait for it.
    std::thread::spawn(move || drop(link));
    Ok(probed.saturating_sub(bare))
}

fn median_round(site: extern "C" fn()) -> u64 {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..HITS {
                std::hint::black_box(site)();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what a probe costs is looked up by its instruction.
    #[test]
    fn by_instruction() {
        let traps = Traps { nop: 1, push: 2, call: 3, jump: 4, stepped: 5 };
        for (text, emulated, cost) in [
            ("nop", true, 1),
            ("push rbp", true, 2),
            ("call 0x1234", true, 3),
            ("jne short 0x12", true, 4),
            ("sub rsp, 8", false, 5),
        ] {
            assert_eq!(traps.of(text, emulated), cost, "{text}");
        }
    }
}
