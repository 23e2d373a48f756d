//! How many records a second the reader takes out of the ring and hands on to be written with nothing lost, and what that costs: rows of
//! `cargo xtask bench`.
//!
//! Usage: `ingest PRODUCERS RATE SECONDS`: so many threads have the kernel make records, so many a second altogether; this thread drains them as
//! the recorder does. Prints one line of JSON.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::time::TimeValLike,
    time::{ClockId, clock_gettime},
};
use tracer_user::{
    capture::{Capture, Message},
    clock::ClockTie,
    kernel::{
        facts::Offers,
        session::{Session, Sizes},
    },
    recording::{
        contract::{Meta, Threads, Tier},
        writer::Writer,
    },
};

const BLOCK_BYTES: usize = 1 << 20;
/// Records of one test run.
const BATCH: u32 = 1_000;

fn main() -> Result<()> {
    let args: Vec<u64> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [producers, rate, seconds] = args[..] else { anyhow::bail!("usage: ingest PRODUCERS RATE SECONDS") };
    let (mut session, mut ring, _logger) = Session::load(Sizes::default(), Offers::look())?;
    let recording = std::env::temp_dir().join(format!("lifetrace-ingest-{}.rec", std::process::id()));
    let capture = Capture::start(Writer::create(&recording, &meta())?)?;
    let producer = Arc::new(session.producer()?);
    let (over, made_cpu_ns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let share = rate as f64 / producers as f64;
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let (producer, over, cpu) = (Arc::clone(&producer), Arc::clone(&over), Arc::clone(&made_cpu_ns));
            thread::spawn(move || -> Result<()> {
                let began = Instant::now();
                let mut made = 0.0;
                while !over.load(Ordering::Relaxed) {
                    let due = Duration::from_secs_f64(made / share);
                    thread::sleep(due.saturating_sub(began.elapsed()));
                    producer.make(BATCH)?;
                    made += f64::from(BATCH);
                }
                cpu.fetch_add(cpu_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)?, Ordering::Relaxed);
                Ok(())
            })
        })
        .collect();
    let (cpu_before, began) = (cpu_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, Instant::now());
    let mut block = Vec::with_capacity(BLOCK_BYTES + 4096);
    let mut drained = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(seconds) {
        let at = Instant::now();
        let empty = ring.drain(&mut block, BLOCK_BYTES);
        drained += at.elapsed();
        if block.len() >= BLOCK_BYTES {
            let full = std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES + 4096));
            capture.send(Message::Records(full));
        }
        if empty {
            thread::sleep(Duration::from_millis(1));
        }
    }
    over.store(true, Ordering::Relaxed);
    let took = began.elapsed().as_secs_f64();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a producer panicked"))??;
    }
    let counters = session.counters(&ring)?;
    let read: u64 = ring.delivered().iter().sum();
    let lost: u64 = counters.lost.iter().map(|lost| lost.count).sum();
    let (_, written) = capture.finish();
    std::fs::remove_file(recording)?;
    written?;
    ensure!(read > 0, "nothing was read");
    let ours = cpu_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)? - cpu_before - made_cpu_ns.load(Ordering::Relaxed);
    let made_ns = made_cpu_ns.load(Ordering::Relaxed) as f64 / (read + lost) as f64;
    println!(
        "{{\"a_second\":{},\"lost\":{lost},\"cpu_ns\":{},\"drain_ns\":{},\"made_ns\":{made_ns}}}",
        read as f64 / took,
        ours as f64 / read as f64,
        drained.as_nanos() as f64 / read as f64
    );
    Ok(())
}

fn cpu_ns(clock: ClockId) -> Result<u64> {
    u64::try_from(clock_gettime(clock)?.num_nanoseconds()).context("a clock before its time")
}

fn meta() -> Meta {
    Meta {
        lifetrace: "bench".to_owned(),
        hostname: String::new(),
        kernel: String::new(),
        cpus: 0,
        clock: ClockTie::now(),
        tier: Tier::T2,
        budget_ppm: None,
        command: Vec::new(),
        target: None,
        hit_cost_ns: None,
        threads: Threads::Off,
        min_block_ns: None,
        cut: None,
    }
}
