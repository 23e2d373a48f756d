//! One line of plain advice for the shapes of leaks that are known.

use crate::recording::contract::Frame;
const WAIT_GROUP: &str =
    "a WaitGroup is never done: Done is missing on some path (defer wg.Done()), or Add counts more than are started";
const CONDITION: &str = "a condition is never signalled: Broadcast when the owner goes away";
const LOCK: &str =
    "a lock is not given back: Unlock is missing on some path (defer mu.Unlock()), or two locks are taken in two orders";

/// Of threads, processes, zombies and descriptors.
pub const THREADS: &str = "threads are made and never end: bound the pool, and let each end, or be joined, when its work is done";
pub const PROCESSES: &str =
    "children are started and do not end: give them a time limit, and end those that nobody needs any more";
pub const ZOMBIES: &str =
    "nobody waits for them: call waitpid for every child, or run under an init that does (docker run --init, tini)";
pub const DESCRIPTORS: &str = "descriptors are opened and not closed: close each on every path, errors included";

/// What a group of goroutines is known by.
pub struct Shape<'a> {
    pub start_function: &'a str,
    pub reason: &'a str,
    /// Innermost first.
    pub stack: &'a [Frame],
    /// Functions that were calling when it was created, innermost first.
    pub creation: &'a [Frame],
    /// They wake by timers and block again.
    pub by_timers: bool,
}

impl Shape<'_> {
    /// `None`: nothing is known of this shape.
    pub fn advice(&self) -> Option<&'static str> {
        let blocks_in = |name: &str| self.stack.iter().any(|frame| frame.function.starts_with(name));
        let created_in = |name: &str| self.creation.iter().any(|frame| frame.function.starts_with(name));
        let starts = |name: &str| self.start_function.starts_with(name);
        let advice = if starts("net/http.(*persistConn)") {
            "a response's body is not read to its end and closed: defer resp.Body.Close() behind every request that succeeds, and set limits on the transport"
        } else if starts("net/http.(*conn).serve") || starts("net/http.(*Server).Serve") {
            "connections of clients stay open: set ReadTimeout, WriteTimeout and IdleTimeout on the server"
        } else if starts("database/sql.(*DB).connectionOpener") {
            "a sql.DB is opened again and again and never closed: open one and keep it"
        } else if starts("os/exec.") || blocks_in("os/exec.(*Cmd).Wait") || blocks_in("os.(*Process).Wait") {
            "a child process does not end, or holds a pipe open: use exec.CommandContext, set WaitDelay, and call Wait"
        } else if starts("time.goFunc") || created_in("time.goFunc") {
            "a time.AfterFunc closure blocks: a timer that has fired cannot be stopped; let the closure select on a context, too"
        } else if starts("context.") || blocks_in("context.") {
            "a context is never cancelled: call the cancel function on every path (defer cancel())"
        } else if blocks_in("sync.(*WaitGroup).Wait") {
            WAIT_GROUP
        } else if blocks_in("sync.(*Cond).Wait") {
            CONDITION
        } else if blocks_in("sync.(*Mutex).Lock") || blocks_in("sync.(*RWMutex)") || blocks_in("sync.(*Once)") {
            LOCK
        } else if self.by_timers {
            "it wakes by a timer and waits again, for ever: stop the ticker, and end the loop by a context or a done channel"
        } else {
            match self.reason {
                "chan send" => {
                    "nobody receives any more (a time-out, an early return): make the channel's buffer large enough, or select on ctx.Done() as well"
                }
                "chan receive" => {
                    "nobody sends or closes any more: close the channel when its sender is done, or select on ctx.Done() as well"
                }
                "chan receive (nil chan)" | "chan send (nil chan)" | "select (no cases)" => {
                    "it waits for something that cannot happen: a channel that was never made, or a select without a case"
                }
                "select" => "no case of the select comes true any more: add one for the context that ends its owner",
                "IO wait" => "the peer is gone or silent: set a deadline on the connection, and close it when its owner ends",
                "sync.Cond.Wait" => CONDITION,
                "sync.WaitGroup.Wait" => WAIT_GROUP,
                "sync.Mutex.Lock" | "sync.RWMutex.Lock" | "sync.RWMutex.RLock" => LOCK,
                "sleep" => "it sleeps in a loop that nothing ends: stop it by a context",
                _ => return None,
            }
        };
        Some(advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the known shapes are told apart, by what started them before what they wait for.
    #[test]
    fn shapes() {
        let frame = |function: &str| Frame { function: function.to_owned(), file: "x.go".to_owned(), line: 1 };
        let advice = |start: &str, reason: &str, top: &str, by_timers: bool| {
            let (stack, creation) = ([frame(top)], [frame("main.main")]);
            Shape { start_function: start, reason, stack: &stack, creation: &creation, by_timers }.advice().unwrap_or_default()
        };
        assert!(
            advice("net/http.(*persistConn).readLoop", "select", "net/http.(*persistConn).readLoop", false)
                .contains("Body.Close")
        );
        assert!(advice("main.f", "semacquire", "sync.(*WaitGroup).Wait", false).contains("wg.Done"));
        assert!(advice("main.f", "chan send", "main.f", false).contains("nobody receives"));
        assert!(advice("main.f", "select", "main.f", true).contains("ticker"));
        assert_eq!(advice("main.f", "something new", "main.f", false), "");
    }
}
