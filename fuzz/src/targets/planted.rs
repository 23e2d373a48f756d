//! Faults on purpose: `cargo xtask fuzz` first checks that each is caught.

use std::{hint::black_box, time::Duration};

use crate::limit::cpu_time;

pub fn fail(input: &[u8]) {
    match input {
        b"panic" => panic!("planted"),
        b"overflow" => {
            let _ = black_box(u8::MAX) + black_box(1);
        }
        b"memory" => drop(black_box(vec![0u8; 600 << 20])),
        b"time" => {
            let end = cpu_time() + Duration::from_secs(3);
            while cpu_time() < end {}
        }
        _ => {}
    }
}
