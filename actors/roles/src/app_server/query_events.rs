//! Lists of events: those with an id from the rows of the module `alarms`, those without from their
//! messages; both stand in the order of their numbers.
use extension::records::{
    Answer, Event, EventFilter, Page, Paging, Time,
    kept::{ALARMS, Happening, happening_key},
};
use protocol::parts::ServiceParts;

use super::{
    index::Found,
    query::{Desk, RowsBack, WORK_MAX, takes},
    query_alarms::{Wanted, event_fields},
    query_directory::is_instance,
    query_messages::number_cursor,
    rows::{SERVICES, from_row, number_at, service_key},
    search::Search,
    segment::{About, Kind, Sought, second},
};

/// Class of events.
const EVENT: &str = "event";
/// Tag of the rows of events.
const ROWS: &[u8] = b"w";

/// What one of two sources gives next.
enum Next {
    /// An event and its number.
    Event(u64, Box<Event>),
    /// The work of one page is done; it goes on below this number.
    Later(u64),
    /// Nothing.
    End,
}

impl Next {
    /// Higher goes first: an event where the other source is done with all from its number on.
    fn rank(&self) -> (u64, bool) {
        match self {
            Self::Event(seq, _) => (*seq, true),
            Self::Later(below) => (*below, false),
            Self::End => (0, false),
        }
    }
}

impl Desk {
    pub(crate) fn events(&self, filter: &EventFilter, paging: &Paging) -> Answer<Page<Event>> {
        let wanted = self.wanted(filter)?;
        let kind = |k: &Kind| k.class == EVENT && k.alone && wanted.takes_kind(k);
        let about = |a: &About| wanted.takes_about(a);
        let sought = Sought {
            kind: &kind,
            about: &about,
            words: &wanted.words,
            since: filter.since.map_or(0, |time| second(time.0)),
            until: filter.until.map_or(u32::MAX, |time| second(time.0)),
        };
        let below = number_cursor(paging)?;
        let prefix = service_key(ALARMS, ROWS);
        let from = below.map(|below| service_key(ALARMS, &happening_key(below)));
        let mut rows = RowsBack::new(&*self.store, SERVICES, &prefix, from);
        let mut search = Search::new(self, sought, below, paging.limit + 1)?;
        let mut looked = 0;
        let mut next_row = || next_of_rows(&mut rows, prefix.len(), &wanted, &mut looked);
        let mut next_alone = || next_alone(&mut search, &wanted);
        let (mut row, mut alone) = (next_row()?, next_alone()?);
        let mut page = Page { items: Vec::new(), next: None };
        let mut last = 0;
        loop {
            // Stores of older versions have rows of events without an id, too.
            if let (Next::Event(row, _), Next::Event(same, _)) = (&row, &alone)
                && row == same
            {
                alone = next_alone()?;
                continue;
            }
            let is_row = row.rank() > alone.rank();
            let event =
                match std::mem::replace(if is_row { &mut row } else { &mut alone }, Next::End) {
                    Next::End => return Ok(page),
                    Next::Later(below) => {
                        page.next = Some(below.to_string());
                        return Ok(page);
                    }
                    Next::Event(_, _) if page.items.len() == paging.limit => {
                        page.next = Some(u64::to_string(&last));
                        return Ok(page);
                    }
                    Next::Event(seq, event) => {
                        last = seq;
                        event
                    }
                };
            page.items.push(*event);
            match is_row {
                true => row = next_row()?,
                false => alone = next_alone()?,
            }
        }
    }
}

impl Wanted<'_> {
    fn takes_kind(&self, kind: &Kind) -> bool {
        let f = self.filter;
        (f.kind.is_empty() || f.kind.contains(&kind.kind))
            && kind.severity.is_none_or(|severity| {
                (f.severity.is_empty() || f.severity.contains(&severity))
                    && f.severity_min.is_none_or(|least| severity >= least)
            })
    }

    fn takes_about(&self, about: &About) -> bool {
        let f = self.filter;
        let id = about.instance.unwrap_or(about.source);
        self.whose.takes(&id)
            && (f.integrator.is_empty() || f.integrator.contains(&about.integrator))
            && is_instance(&f.instance, &about.external_id, &id)
    }

    fn takes_event(&self, event: &Event) -> bool {
        takes(&self.filter.state, &event.state) && self.takes(&event_fields(event))
    }
}

fn next_of_rows(
    rows: &mut RowsBack<'_>,
    prefix: usize,
    wanted: &Wanted<'_>,
    looked: &mut usize,
) -> Answer<Next> {
    while let Some((key, value)) = rows.next_back()? {
        let seq = number_at(&key, prefix).unwrap_or_default();
        let event = from_row::<Happening>(&value).map(|happening| happening.event);
        if let Some(event) = event.filter(|event| wanted.takes_event(event)) {
            return Ok(Next::Event(seq, Box::new(event)));
        }
        *looked += 1;
        if *looked >= WORK_MAX {
            return Ok(Next::Later(seq));
        }
    }
    Ok(Next::End)
}

fn next_alone(search: &mut Search<'_>, wanted: &Wanted<'_>) -> Answer<Next> {
    loop {
        match search.next_back()? {
            Err(below) => return Ok(Next::Later(below)),
            Ok(None) => return Ok(Next::End),
            Ok(Some(found)) => {
                if let Some(event) = alone(&found).filter(|event| wanted.takes_event(event)) {
                    return Ok(Next::Event(found.seq(), Box::new(event)));
                }
            }
        }
    }
}

/// The event that a message is, where it has no id.
pub(crate) fn alone(found: &Found) -> Option<Event> {
    let parts = found.blocks()?.1.parts().ok()?;
    let ServiceParts::Event(said) = &parts.service else { return None };
    let stored = &found.reel.stored;
    let stored_at = Time(stored.stored_at());
    let happening = Happening::of(&parts, said, stored_at, stored.run.header.replayed);
    said.event_id.is_empty().then_some(happening.event)
}
