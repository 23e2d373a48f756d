//! Windows that are asked for: `POST /v1/record`.

use std::{path::PathBuf, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::ORIGIN,
};
use tokio::{sync::oneshot, time::timeout};

use super::{ANSWER_WITHIN, Door, PLAIN, reply};
use crate::agent::record::{Refusal, Wish};

const JSON: &str = "application/json";
/// A window goes on for so long at most.
const LONGEST: Duration = Duration::from_secs(3600);

/// Somebody wants a window to be recorded.
pub struct Wished {
    pub what: Wish,
    answer: oneshot::Sender<Result<PathBuf, Refusal>>,
}

impl Wished {
    /// Whether who asked still waits: a window that nobody is told of would stand in the way of the next.
    pub fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    /// Who asked may be gone.
    pub fn answer(self, begun: Result<PathBuf, Refusal>) {
        let _ = self.answer.send(begun);
    }
}

impl Door {
    /// `POST /v1/record?program=PATH&after=30s`; both can be left out.
    pub(super) async fn record(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // Whoever asks for one has somebody's program followed more closely.
        if self.token.is_none() && !self.mutual {
            let text = "windows are for those who show something: name a token_file or [tls] client_ca_file\n";
            return reply(StatusCode::FORBIDDEN, PLAIN, text);
        }
        // A page in somebody's browser may send this, too, to whoever listens on its own machine: browsers say where it came from.
        if request.headers().contains_key(ORIGIN) {
            return reply(StatusCode::FORBIDDEN, PLAIN, "not from a web page\n");
        }
        let what = match wish(request.uri().query().unwrap_or_default()) {
            Ok(what) => what,
            Err(error) => return reply(StatusCode::BAD_REQUEST, PLAIN, format!("{error}\n")),
        };
        let (answer, answered) = oneshot::channel();
        if self.wishes.try_send(Wished { what, answer }).is_err() {
            return reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "somebody else asks just now\n");
        }
        match timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(Ok(path))) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let text = serde_json::json!({ "recording": name, "path": path.to_string_lossy() });
                reply(StatusCode::ACCEPTED, JSON, format!("{text}\n"))
            }
            Ok(Ok(Err(refusal))) => {
                let status = match refusal {
                    Refusal::Off | Refusal::NoProgram => StatusCode::NOT_FOUND,
                    Refusal::Busy => StatusCode::CONFLICT,
                    Refusal::Folder(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                reply(status, PLAIN, format!("{refusal}\n"))
            }
            _ => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the agent begins or ends; ask again\n"),
        }
    }
}

/// What a query asks for.
fn wish(query: &str) -> Result<Wish, String> {
    let mut wish = Wish::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "program" => wish.program = Some(value.into_owned()),
            "after" => {
                let after = humantime::parse_duration(&value).map_err(|error| format!("after: {error}"))?;
                let fits = (Duration::from_secs(1)..=LONGEST).contains(&after);
                wish.after = Some(fits.then_some(after).ok_or("after: from 1s to 1h")?);
            }
            other => return Err(format!("{}: not known; there are program and after", other.escape_default())),
        }
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{
        super::{
            open,
            tests::{anywhere, ask, get},
        },
        *,
    };

    const TOKEN: &str = "0123456789abcdef";

    /// Check what can be asked of a window, and how it is answered.
    #[test]
    fn windows() {
        assert_eq!(wish(""), Ok(Wish::default()));
        let whole = Wish { program: Some("/a b".into()), after: Some(Duration::from_secs(90)) };
        assert_eq!(wish("program=%2Fa+b&after=90s"), Ok(whole));
        for wrong in ["after=2h", "after=0s", "after=x", "a=b"] {
            assert!(wish(wrong).is_err(), "{wrong}");
        }
        let hall = open(anywhere(), Some(TOKEN), None).unwrap();
        let address = hall.address;
        let post = |more: &'static str| {
            thread::spawn(move || ask(address, &format!("POST /v1/record{more}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")))
        };
        let answers = [
            (Ok(PathBuf::from("/r/a.lifetrace")), "HTTP/1.1 202"),
            (Err(Refusal::Busy), "HTTP/1.1 409"),
            (Err(Refusal::Off), "HTTP/1.1 404"),
        ];
        for (answer, expected) in answers {
            let asking = post(" HTTP/1.1\r\nHost: a\r\nConnection: close");
            hall.wishes.recv().unwrap().answer(answer);
            let answered = asking.join().unwrap();
            assert!(answered.starts_with(expected), "{answered}");
        }
        let page = post(" HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nConnection: close").join().unwrap();
        assert!(page.starts_with("HTTP/1.1 403"), "{page}");
        let open_to_all = open(anywhere(), None, None).unwrap();
        let refused = ask(open_to_all.address, "POST /v1/record HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("token_file"), "{refused}");
        let wrong = post("?after=9h HTTP/1.1\r\nHost: a\r\nConnection: close").join().unwrap();
        assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");
        assert!(get(address, "/v1/record", &format!("Authorization: Bearer {TOKEN}\r\n")).starts_with("HTTP/1.1 405"));
    }
}
