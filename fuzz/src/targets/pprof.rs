//! Answers of `net/http/pprof`.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use tracer_user::{
    clock::KtimeNs,
    golang::GoBinary,
    id::{BinaryId, ProcessKey, Tgid},
    pprof::{
        base::Base,
        counted, index, mem_stats, profile,
        resolve::{Names, claims, resolve},
        sockets, text,
        verdict::{Sight, judge},
    },
    recording::contract::Tier,
    snapshot::dump::Of,
};

/// The program whose goroutines the answers are said to be.
static PROGRAM: &[u8] = include_bytes!("../../corpus/go_binary/go1.26");

/// All goroutines one by one, up to what a recording would hold of them.
pub fn goroutines(input: &[u8]) {
    thread_local! {
        static BINARY: GoBinary = GoBinary::from_bytes(PROGRAM.to_vec()).expect("the seed is a Go binary");
    }
    let told = String::from_utf8_lossy(input);
    let Ok(dump) = text::parse(&told) else { return };
    let (claims, nobody) = (claims(&dump), Sight::default());
    let _ = judge(&nobody, &nobody, &claims, dump.cut, 2);
    BINARY.with(|binary| {
        let process = ProcessKey { tgid: Tgid(1), start_ticks: 1 };
        let of = Of { process, binary, binary_id: BinaryId(1), bias: 0, tier: Tier::T2, check: true };
        let mut names = Names::new(binary, 0);
        let Ok(out) = resolve(&dump, None, &mut names, of, (KtimeNs(1), KtimeNs(2))) else { return };
        assert_eq!(out.goroutines.len(), dump.goroutines.len());
        assert!(out.goroutines.iter().all(|goroutine| (goroutine.2 as usize) < out.kinds.len()));
        let json = serde_json::to_vec(&out).expect("a dump is JSON");
        assert!(json.len() < 64 << 20, "{} bytes of JSON", json.len());
    });
}

/// Goroutines by stack, the numbers of the heap, and the other pages of text.
pub fn pages(input: &[u8]) {
    let told = String::from_utf8_lossy(input);
    let _ = (counted::parse(&told).is_ok(), mem_stats::parse(&told).is_ok(), index::parse(&told));
    if let Ok(base) = told.parse::<Base>() {
        assert_eq!(base.to_string().parse(), Ok(base));
    }
    for socket in sockets::listening(input) {
        assert!(socket.ask_at().iter().all(|address| socket.answers(*address)), "{socket:?}");
    }
}

/// A profile in protobuf: as it is, and packed first, because no fuzzer makes a gzip by chance.
pub fn packed(input: &[u8]) {
    let _ = profile::decode(input).is_ok();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    let written = gzip.write_all(input);
    if let (Ok(()), Ok(data)) = (written, gzip.finish())
        && let Ok(profile) = profile::decode(&data)
    {
        assert!(profile.sample.iter().all(|sample| sample.value.len() == profile.sample_type.len()));
    }
}
