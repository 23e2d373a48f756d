use tracer_user::kernel::{session::*, gate::*, calibrate, features};
fn main() {
    if std::env::args().nth(1).as_deref() == Some("exec-gate") { let _ = tracer_user::kernel::gate::server::serve(); return; }
    for c in features::checks() { println!("{c:?}"); }
    let (mut s, _r, _l) = match Session::load(Sizes::default()) { Ok(x) => x, Err(e) => { let mut e: &dyn std::error::Error = &e; loop { println!("{e}"); match e.source() { Some(s) => e = s, None => break } } return } };
    println!("hit cost {:?}", calibrate::hit_cost_ns(&mut s));
    println!("hit cost {:?}", calibrate::hit_cost_ns(&mut s));
    let g = Gate::start(s.followed_fd());
    println!("{:?}", g.is_ok());
    if let Err(e) = &g { println!("{e}"); }
    println!("{:?}", std::process::Command::new("/bin/echo").arg("hi").status());
    println!("{:?}", s.counters());
}
