//! Goroutines that libraries keep for as long as a process lives: started under a test because it was the first to need them.

use crate::recording::contract::Frame;

/// Functions that such a goroutine is made in or begins with (docs/leaks.md).
const SINGLETONS: [&str; 9] = [
    // The process's one loop over signals (os/signal/signal_unix.go), and the watcher it is started by.
    "os/signal.loop",
    "os/signal.Notify.func1.1",
    "os/signal.watchSignalLoop",
    // The one worker of OpenCensus's default meter.
    "go.opencensus.io/stats/view.(*worker).start",
    // Loggers that write out what they hold, for ever.
    "github.com/golang/glog.(*loggingT).flushDaemon",
    "github.com/golang/glog.(*fileSink).flushDaemon",
    "k8s.io/klog.(*loggingT).flushDaemon",
    "k8s.io/klog/v2.(*loggingT).flushDaemon",
    "k8s.io/klog/v2.(*flushDaemon).run.func1",
];

/// What reads a connection of `net/http`'s client, and waits for the network while it is idle.
const READERS: [&str; 3] = [
    "net/http.(*persistConn).readLoop",
    "net/http.(*http2clientConnReadLoop).run",
    "golang.org/x/net/http2.(*clientConnReadLoop).run",
];
/// What writes to one; it waits for its reader's end.
const WRITER: &str = "net/http.(*persistConn).writeLoop";
/// The wait reason of the network poller.
const IO_WAIT: &str = "IO wait";

/// Whether it is one of these, or serves a connection that is idle.
pub fn excuse(created_by: Option<&Frame>, start_function: Option<&str>, reason: &str, stack: &[Frame]) -> bool {
    let made = [created_by.map(|frame| frame.function.as_str()), start_function];
    let in_stack = |name: &str| stack.iter().any(|frame| frame.function == name);
    made.into_iter().flatten().any(|name| SINGLETONS.contains(&name))
        || in_stack(WRITER)
        || reason == IO_WAIT && READERS.iter().any(|reader| in_stack(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str) -> Frame {
        Frame { function: function.to_owned(), file: String::new(), line: 0 }
    }

    /// Check that an idle connection is excused, and one whose response was never closed is not.
    #[test]
    fn connections() {
        let dial = frame("net/http.(*Transport).dialConn");
        let reader = [frame("internal/poll.runtime_pollWait"), frame(READERS[0])];
        assert!(excuse(Some(&dial), None, IO_WAIT, &reader));
        assert!(!excuse(Some(&dial), None, "select", &reader));
        assert!(excuse(Some(&dial), None, "select", &[frame(WRITER)]));
        assert!(excuse(Some(&frame("os/signal.Notify.func1.1")), Some("os/signal.loop"), "select", &[]));
        assert!(!excuse(Some(&frame("main.start")), Some("main.loop"), "select", &[]));
    }
}
