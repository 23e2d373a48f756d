//! Records that stand for nothing: what the reader is measured with. Made in a test run of the program (`BPF_PROG_TEST_RUN`), never attached.

use tracer_common::{goroutine::GoroutineWake, header::Kind};

use crate::emit;

/// One more wake, of a process that there is not.
#[inline(always)]
pub fn produce() {
    let header = emit::header(Kind::GoroutineWake, 0, 0, 0);
    emit::send(Kind::GoroutineWake, header.seq, GoroutineWake { header, goid: header.seq, waker_goid: 0 });
}
