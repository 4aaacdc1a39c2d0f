//! A service module as an author writes it: takes alarms, and publishes how many there were.
use bytes::Bytes;
use extension::service::{
    Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
};
use protocol::{
    Precedence,
    message::Classification,
    service::{Data, Payload, Service},
};

/// Counts alarms, and publishes each tenth.
pub struct Counter;

impl ServiceModule for Counter {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: "counter".to_owned(),
            classification: Classification::Monitoring,
            parts: vec![Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http],
            needs_session: false,
            subscriptions: vec![Subscription { class: "alarm".to_owned(), subclass: None }],
        }
    }

    fn handle(&mut self, _: &Received<'_>, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        let key = Bytes::from_static(b"count");
        let count = rows.row(&key)?.map_or(0, |row| row[0]) + 1;
        let mut effects = vec![Effect::Put { key, value: vec![count].into() }];
        if count % 10 == 0 {
            let payload =
                Payload { encoding: "text/plain".to_owned(), data: count.to_string().into() };
            let (kind, subtype) = ("report".to_owned(), "alarms".to_owned());
            effects.push(Effect::Publish {
                service: Service::Data(Data { kind, subtype, payload }),
                subclass: "report/alarms".to_owned(),
                about: String::new(),
                precedence: Precedence::Normal,
            });
        }
        Ok(effects)
    }
}
