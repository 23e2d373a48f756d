//! In which form metrics are wanted: what the header `Accept` says (RFC 9110, 12.5.1), as Prometheus says it.

use hyper::header::HeaderValue;

/// Media ranges that are looked at.
const MAX_RANGES: usize = 32;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// OpenMetrics: everybody reads it.
    Text,
    /// Prometheus's own messages, which have native histograms.
    Protobuf,
}

impl Form {
    /// The media type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        }
    }

    /// Messages, where they are asked for by name and nothing that is text is wanted as much.
    pub fn wanted<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let (mut messages, mut text) = (0.0, 0.0);
        let values = accept.into_iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')).take(MAX_RANGES) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let is = |key: &str, value: &str| parameters.iter().any(|(one, other)| *one == key && *other == value);
            let quality = parameters.iter().find(|(key, _)| *key == "q").map_or(Some(1.0), |(_, value)| value.parse().ok());
            let quality: f64 = quality.unwrap_or(0.0);
            let known = is("proto", "io.prometheus.client.MetricFamily") && is("encoding", "delimited");
            if kind.eq_ignore_ascii_case("application/vnd.google.protobuf") && known {
                messages = quality.max(messages);
            } else if !kind.eq_ignore_ascii_case("application/vnd.google.protobuf") && !kind.starts_with("*/") {
                text = quality.max(text);
            }
        }
        if messages > text { Self::Protobuf } else { Self::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that messages are sent to those alone who would rather have them: Prometheus does with native histograms, and not without.
    #[test]
    fn wanted() {
        let messages = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, form) in [
            (String::new(), Form::Text),
            ("*/*".to_owned(), Form::Text),
            (messages.to_owned(), Form::Protobuf),
            (format!("{messages};q=0.4, */*;q=0.2"), Form::Protobuf),
            (
                format!(
                    "{messages};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.2,*/*;q=0.1"
                ),
                Form::Protobuf,
            ),
            (format!("application/openmetrics-text;version=1.0.0;q=0.5,{messages};q=0.4"), Form::Text),
            (format!("{messages};q=0"), Form::Text),
            (format!("{messages};q=much"), Form::Text),
            ("application/vnd.google.protobuf;proto=some.other.Family;encoding=delimited".to_owned(), Form::Text),
            ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8".to_owned(), Form::Text),
        ] {
            assert_eq!(Form::wanted([&HeaderValue::from_str(&accept).unwrap()]), form, "{accept}");
        }
    }
}
