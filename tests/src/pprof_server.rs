//! Servers of profiles: the fixture `served`, and ones that nobody should believe.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::{
    fixture,
    process::Running,
    truth::{self, Served},
};

/// The fixture `served`, under way.
pub fn served(args: &[&str]) -> Result<(Running, Served)> {
    served_through(&mut Command::new(fixture::go("served")?), args)
}

/// The same behind another command.
pub fn served_through(command: &mut Command, args: &[&str]) -> Result<(Running, Served)> {
    let mut whole = Command::new(command.get_program());
    whole.args(command.get_args()).args(args);
    let mut running = Running::start(whole, None)?;
    let truth = truth::read(&running.line(0)?)?;
    Ok((running, truth))
}

/// How a server answers.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Takes the question, and says nothing.
    Slow,
    /// Never stops.
    Endless,
    /// Never stops, and sends as fast as it is read.
    Flood,
    /// Sends a letter of an answer's head now and then, and never all of it.
    Loris,
    /// Promises more than it sends.
    Truncated,
    /// Packs what it says in a gzip without an end.
    TruncatedGzip,
    Trouble,
    /// Sends whoever asks to another port.
    Redirecting(SocketAddr),
    Garbage,
    /// Passes on what another process says.
    Lying(SocketAddr),
    /// Passes on what the right process says.
    Passing(SocketAddr),
}

const INDEX: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 97\r\n\r\n\
    <title>/debug/pprof/</title><td>5</td><td><a href='goroutine?debug=1'>goroutine</a></td>         ";

/// Serves until the test ends.
pub fn serve(manner: Manner) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is what a bad answer is for.
            thread::spawn(move || drop(answer(stream, manner)));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, manner: Manner) -> Result<()> {
    let mut question = Vec::new();
    let mut byte = [0];
    while !question.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        question.push(byte[0]);
    }
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    let index = question.starts_with(b"GET /debug/pprof/ ");
    match manner {
        Manner::Slow => thread::sleep(Duration::from_secs(60)),
        Manner::Endless => {
            write!(stream, "{ok}\r\n")?;
            loop {
                stream.write_all(b"goroutine 1 [running]:\nmain.main()\n\t/main.go:1 +0x1\n\n")?;
                thread::sleep(Duration::from_millis(1));
            }
        }
        Manner::Flood => {
            write!(stream, "{ok}\r\n")?;
            let much = b"goroutine 1 [running]:\nmain.main()\n\t/main.go:1 +0x1\n\n".repeat(1000);
            loop {
                stream.write_all(&much)?;
            }
        }
        Manner::Loris => {
            write!(stream, "{ok}X-Slow: ")?;
            loop {
                stream.write_all(b"x")?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        Manner::Truncated if !index => write!(stream, "{ok}Content-Length: 1000\r\n\r\ngoroutine 1 [run")?,
        Manner::TruncatedGzip if !index => {
            write!(stream, "{ok}\r\n")?;
            stream.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, 2])?;
        }
        Manner::Trouble => write!(stream, "HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\nall is \x1b[31mlost\n")?,
        Manner::Redirecting(to) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: http://{to}/debug/pprof/\r\nContent-Length: 0\r\n\r\n")?;
        }
        Manner::Garbage if !index => write!(stream, "{ok}\r\nno goroutine anywhere")?,
        Manner::Lying(to) | Manner::Passing(to) => {
            let mut other = TcpStream::connect(to)?;
            let question = String::from_utf8_lossy(&question).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            other.write_all(question.as_bytes())?;
            std::io::copy(&mut other, &mut stream)?;
        }
        Manner::Truncated | Manner::TruncatedGzip | Manner::Garbage => stream.write_all(INDEX.as_bytes())?,
    }
    Ok(())
}
