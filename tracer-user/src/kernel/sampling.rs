//! The sampling clock: on each CPU a perf event that interrupts it so many times a second.
//!
//! A CPU that goes offline takes its event along and brings none back (`kernel/events/core.c`, `perf_event_exit_cpu`), and all but the first go
//! offline when the machine is put to sleep. So after that, and when other CPUs are online than before, the clocks are set anew.

use aya::{
    Ebpf,
    programs::{
        PerfEvent,
        perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};

use super::KernelError;

/// What serves it.
const PROGRAM: &str = "cpu_clock";

/// How it ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// A second, on each CPU.
    pub hz: u32,
    pub cpus: u32,
}

/// A clock that ticks. Dropping it stops it.
pub(super) struct SamplingClock {
    hz: u32,
    cpus: Vec<u32>,
    events: Vec<PerfEventLink>,
}

impl SamplingClock {
    /// Loads what serves it, and starts it on every CPU that is online.
    pub fn start(ebpf: &mut Ebpf, hz: u32) -> Result<Self, KernelError> {
        program(ebpf)?.load().map_err(KernelError::program(PROGRAM, "loaded"))?;
        let mut clock = Self { hz, cpus: Vec::new(), events: Vec::new() };
        clock.set(ebpf, online()?)?;
        Ok(clock)
    }

    pub fn ticks(&self) -> Ticks {
        Ticks { hz: self.hz, cpus: u32::try_from(self.events.len()).unwrap_or(u32::MAX) }
    }

    /// Sets it anew where other CPUs are online than before, or where `woken` says that any may have been offline meanwhile; whether it did.
    pub fn renew(&mut self, ebpf: &mut Ebpf, woken: bool) -> Result<bool, KernelError> {
        let online = online()?;
        if !woken && online == self.cpus {
            return Ok(false);
        }
        // One may have gone offline since.
        self.set(ebpf, online).or_else(|_| self.set(ebpf, self::online()?))?;
        Ok(true)
    }

    fn set(&mut self, ebpf: &mut Ebpf, cpus: Vec<u32>) -> Result<(), KernelError> {
        self.events.clear();
        let program = program(ebpf)?;
        let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
        let period = SamplePolicy::Period(1_000_000_000 / u64::from(self.hz.max(1)));
        for &cpu in &cpus {
            let link = program
                .attach(clock, PerfEventScope::AllProcessesOneCpu { cpu }, period, false)
                .map_err(KernelError::program(PROGRAM, "attached"))?;
            self.events.push(program.take_link(link).map_err(KernelError::program(PROGRAM, "attached"))?);
        }
        self.cpus = cpus;
        Ok(())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut PerfEvent, KernelError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(KernelError::Missing(PROGRAM))?;
    program.try_into().map_err(KernelError::program(PROGRAM, "used"))
}

fn online() -> Result<Vec<u32>, KernelError> {
    online_cpus().map_err(|(_, source)| KernelError::Io { what: "the list of CPUs", source })
}
