//! Watches the pods of this node, on a thread of its own, for as long as it is wanted and whatever the API server does.

use std::{
    error::Error,
    io,
    pin::pin,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kube::{
    Api, Client, Error as KubeError,
    runtime::watcher::{self, DefaultBackoff, Event, watcher},
};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    client::{self, TooLong},
    object::Object,
    pod::{Keep, Pod},
    pods::{Pods, Trouble},
    settings::Settings,
};

/// After so long the server ends a watch, and the next begins where it was; a connection that died is noticed by then.
const LASTS_S: u32 = 120;
/// After so many failures in a row all is listed again: a server that was set back does not know the version that was seen last.
const LIST_AFTER: u32 = 6;
/// Between two looks for what was gone long ago.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// Between two lines about the same trouble: the rest is on /metrics.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// Ends with its owner.
pub struct Watch {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins; the server need not be there.
    pub fn start(settings: Settings, keep: Keep, pods: Arc<Pods>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        pods.turn(true);
        let work = move || {
            let watching = Watching { settings, keep, pods, backoff: DefaultBackoff::default(), said: None };
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = watching.run() => {}
                }
            });
            // Somebody's name may be being looked up, which nobody can interrupt.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("pods".into()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended, then nobody hears it.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Watching {
    settings: Settings,
    keep: Keep,
    pods: Arc<Pods>,
    /// From 0.8 to 30 s, at random in between; from the beginning once nothing went wrong for two minutes.
    backoff: DefaultBackoff,
    said: Option<Instant>,
}

impl Watching {
    async fn run(mut self) {
        loop {
            match client::client(&self.settings, &self.pods).await {
                Ok(client) => self.watch(client).await,
                Err(error) => self.trouble(Trouble::Config, &error).await,
            }
        }
    }

    /// Takes what is told until all has to be asked for anew, by another client.
    async fn watch(&mut self, client: Client) {
        let of_node = format!("spec.nodeName={}", self.keep.node);
        // Out of the server's memory, as the kubelet asks: every node asks for its own, and etcd would look through all of them each time.
        let mut config = watcher::Config::default().any_semantic().fields(&of_node).timeout(LASTS_S);
        // By pages there is no list out of its memory (`ListParams::populate_qp` of kube-core).
        config.page_size = None;
        let mut events = pin!(watcher(Api::<Object>::all(client), config));
        let mut failures = 0;
        let mut forget = interval(FORGET_EVERY);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        failures = 0;
                        self.take(event, Instant::now());
                    }
                    Some(Err(error)) => {
                        failures += 1;
                        let trouble = of_watcher(&error);
                        self.trouble(trouble, &error).await;
                        // What was not understood is missing, and who is not let in may have got another token. One that was cut off goes on.
                        if failures >= LIST_AFTER || trouble != Trouble::Unreachable {
                            return;
                        }
                    }
                    None => return,
                },
                _ = forget.tick() => self.pods.forget(Instant::now()),
            }
        }
    }

    fn take(&self, event: Event<Object>, now: Instant) {
        match event {
            Event::Init => self.pods.begin_list(),
            Event::InitApply(object) | Event::Apply(object) => match Pod::of(&object.into_raw(), &self.keep) {
                Some((pod, nonsense)) => {
                    self.pods.nonsense(nonsense);
                    self.pods.apply(pod, now);
                }
                None => self.pods.nonsense(1),
            },
            Event::Delete(object) => self.pods.delete(object.uid(), now),
            Event::InitDone => {
                self.pods.end_list(now);
                self.pods.heard(now);
            }
        }
    }

    /// Counts it, says it now and then, and lets some time pass.
    async fn trouble(&mut self, trouble: Trouble, error: &(dyn Error + 'static)) {
        let first = self.pods.trouble(trouble);
        if trouble != Trouble::Gone && self.said.is_none_or(|said| first && said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!("pods of {} are as they were last known: {}", self.keep.node, story(error));
        }
        sleep(self.backoff.next().unwrap_or(SAY_EVERY)).await;
    }
}

/// What went wrong, without what was sent: that may be long, and a secret.
fn story(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text: String = error.to_string().chars().take(200).collect();
        // Some print their source as well.
        if !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    crate::timeline::human::plain(&said.join(": "))
}

fn of_watcher(error: &watcher::Error) -> Trouble {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_client(error),
        watcher::Error::WatchError(status) => of_code(status.code),
        watcher::Error::NoResourceVersion => Trouble::Malformed,
    }
}

fn of_client(error: &KubeError) -> Trouble {
    match error {
        KubeError::Api(status) => of_code(status.code),
        KubeError::SerdeError(_) | KubeError::FromUtf8(_) => Trouble::Malformed,
        error if is_too_long(error) => Trouble::Malformed,
        KubeError::Auth(_) => Trouble::Config,
        _ => Trouble::Unreachable,
    }
}

fn of_code(code: u16) -> Trouble {
    match code {
        // What is no answer at all may pass for one that says nothing.
        0 => Trouble::Malformed,
        401 | 403 => Trouble::Forbidden,
        410 => Trouble::Gone,
        _ => Trouble::Refused,
    }
}

fn is_too_long(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error holds another one that is not its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<TooLong>() || inner.is_some_and(|inner| is_too_long(inner)) {
            return true;
        }
        next = error.source();
    }
    false
}
