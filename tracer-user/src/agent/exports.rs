//! What leaves the agent without being asked for. It listens beside the ledger, and is called now and then from the thread that follows.

#[cfg(feature = "otlp")]
use super::otlp::{self, Otlp};
use super::{
    config::Config,
    kubernetes::Places,
    ledger::Ledger,
    metrics::{More, Own},
};
use crate::{
    correlate::{Life, Sink, Span, goroutine::Who},
    top::model::Model,
};

/// What the exports heard since they were last called.
#[derive(Default)]
pub struct Heard {
    #[cfg(feature = "otlp")]
    otlp: otlp::heard::Heard,
}

/// All ways out that the file opens.
#[derive(Default)]
pub struct Exports {
    #[cfg(feature = "otlp")]
    otlp: Option<Otlp>,
}

impl Exports {
    /// Opens them, with threads of their own.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    pub fn start(config: &Config, places: &Places) -> anyhow::Result<Self> {
        Ok(Self {
            #[cfg(feature = "otlp")]
            otlp: config.otlp.as_ref().map(|settings| Otlp::start(&config.node, settings, places.clone())).transpose()?,
        })
    }

    /// Takes the file as it is now. What is wrong with it is an error, and what was before stays.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    pub fn reload(&mut self, config: &Config, places: &Places) -> anyhow::Result<()> {
        #[cfg(feature = "otlp")]
        match (&mut self.otlp, &config.otlp) {
            (Some(otlp), Some(settings)) => otlp.renew(settings)?,
            _ => *self = Self::start(config, places)?,
        }
        Ok(())
    }

    /// What listens to a recording that begins.
    pub fn listen(&mut self) -> Heard {
        Heard {
            #[cfg(feature = "otlp")]
            otlp: self.otlp.as_mut().map(Otlp::listen).unwrap_or_default(),
        }
    }

    /// Whether one of them is to be called now.
    pub fn is_due(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.otlp.as_ref().is_some_and(Otlp::is_due);
        #[cfg(not(feature = "otlp"))]
        false
    }

    /// Sends what there is to tell, after the ledger has taken what was heard.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    pub fn gather(&mut self, heard: &mut Heard, ledger: &Ledger, model: &mut Model, own: &Own) {
        #[cfg(feature = "otlp")]
        if let Some(otlp) = &mut self.otlp {
            otlp.gather(&mut heard.otlp, ledger, model, own);
        }
    }

    /// A recording is over, and all that was heard of it is sent: notes what holds on in the next one.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    pub fn end(&mut self, model: &Model) {
        #[cfg(feature = "otlp")]
        if let Some(otlp) = &mut self.otlp {
            otlp.end(model);
        }
    }

    /// What they say of themselves.
    pub fn rows(&self) -> Vec<More> {
        #[cfg(feature = "otlp")]
        return self.otlp.as_ref().map(Otlp::rows).unwrap_or_default();
        #[cfg(not(feature = "otlp"))]
        Vec::new()
    }
}

impl Sink for Heard {
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    fn span(&mut self, who: &Who, span: &Span) {
        #[cfg(feature = "otlp")]
        self.otlp.span(who, span);
    }

    #[cfg_attr(not(feature = "otlp"), expect(unused_variables))]
    fn life(&mut self, who: &Who, life: &Life) {
        #[cfg(feature = "otlp")]
        self.otlp.life(who, life);
    }

    #[cfg(feature = "otlp")]
    fn labels(&mut self, who: &Who, at: crate::clock::KtimeNs, labels: crate::correlate::LabelsId) {
        self.otlp.labels(who, at, labels);
    }
}
