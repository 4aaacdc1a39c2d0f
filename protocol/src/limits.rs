//! Every bound on what is said: unit, reason, and the relations the compiler checks.

/// Payload of one message, bytes: a screen dump or a log excerpt; more is a bulk transfer (BLK).
pub const DATA_BYTES_MAX: usize = 256 << 10;
/// Service block, bytes: the payload and its describing fields.
pub const SERVICE_BYTES_MAX: usize = 272 << 10;
/// Service block of a registration, bytes: all instances of a large platform at once (API-9).
pub const REGISTRATION_BYTES_MAX: usize = 768 << 10;
/// Header block, bytes: its names are bounded below.
pub const HEADER_BYTES_MAX: usize = 4 << 10;
/// Infrastructure block, bytes: its names are bounded below.
pub const INFRASTRUCTURE_BYTES_MAX: usize = 4 << 10;
/// Names, types, keys and ids of integrators, bytes (contract §7).
pub const NAME_BYTES_MAX: usize = 256;
/// Subclass in a header, bytes: of data it is an integrator's class, a `/` and its subclass.
pub const SUBCLASS_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1;
/// Text of an alarm or event, bytes: one line on a page.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Messages of one exchange, bytes: about a second of a slow line.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Messages of one exchange: the outcomes stay a small answer.
pub const BATCH_MESSAGES_MAX: usize = 1024;
/// Body of an exchange after decompression, bytes.
pub const EXCHANGE_BYTES_MAX: usize = 2 << 20;
/// Runs in one exchange.
pub const RUNS_MAX: usize = 1024;
/// Heartbeats in one exchange; more wait for the next.
pub const BEATS_MAX: usize = 64;
/// One heartbeat, bytes.
pub const BEAT_BYTES_MAX: usize = 8 << 10;
/// End reports in one exchange.
pub const ENDS_MAX: usize = 256;
/// Acknowledgements of back-channel messages in one exchange.
pub const ACKNOWLEDGEMENTS_MAX: usize = 1024;
/// Questions open at once at a node: people who look, one each; who comes beyond asks again.
pub const QUESTIONS_MAX: usize = 16;
/// Ids one question names; for more it names what they share.
pub const QUESTION_TARGETS_MAX: usize = 256;
/// Name of a queue, bytes: the longest has an integrator's name in it.
pub const QUEUE_NAME_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// Back-channel messages in one answer, bytes: below the exchange body with room for the rest.
pub const DOWN_BYTES_MAX: usize = 1 << 20;
/// Nodes a message may pass: proxy, customer MLM, aggregation, applications, server, and slack.
pub const HOPS_MAX: usize = 8;
/// How long a parent holds an empty exchange open, seconds: below the usual 60 s of middle boxes.
pub const HELD_S_MAX: u64 = 45;
/// Attempts of a service module at a message before it is set aside as poison.
pub const POISON_ATTEMPTS_MAX: u32 = 5;
/// How wrong a platform's clock may be, milliseconds (ten years).
pub const CLOCK_TOLERANCE_MS: i64 = 10 * 366 * 24 * 3600 * 1000;
/// Latest time of a hop, ms since 1970: the end of year 9999. None is before 1970, so that sums of
/// times cannot overflow.
pub const TIME_MS_MAX: i64 = 253_402_300_799_999;
/// Exchanges in flight on a link and precedence.
pub const IN_FLIGHT: usize = 2;
/// Nesting of a MessagePack value that is skipped.
pub const DEPTH_MAX: usize = 16;
/// One frame on the integrator socket, bytes (contract §7).
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Unanswered requests of an integrator before the proxy stops reading (contract §7).
pub const WINDOW: usize = 1024;
/// Results of a stream the proxy remembers (`delivery.md` §6).
pub const STREAM_RESULTS_MAX: usize = 1024;
/// What tells a call from all others of its integrator, class and instance (`once`), bytes: any
/// digest, or an id.
pub const ONCE_BYTES_MAX: usize = 64;
/// How long a call with a `once` is known, milliseconds: senders repeat for a minute or two, and
/// an integrator may take minutes to be started again. Not much longer, for a sender that begins
/// anew may say the same again and mean it.
pub const ONCE_KEPT_MS: i64 = 10 * 60 * 1000;
/// Calls with a `once` that a proxy knows, of all its integrators: some 16 MiB of memory. At 1,000
/// a second it is a minute; beyond that a repeat is stored again, and nothing is lost.
pub const ONCE_KEPT_MAX: usize = 65_536;

const _: () = {
    assert!(DATA_BYTES_MAX < SERVICE_BYTES_MAX, "a block holds its payload and its fields");
    assert!(
        SERVICE_BYTES_MAX + HEADER_BYTES_MAX + INFRASTRUCTURE_BYTES_MAX < BATCH_BYTES_MAX,
        "any message fits a batch"
    );
    assert!(
        REGISTRATION_BYTES_MAX + HEADER_BYTES_MAX + INFRASTRUCTURE_BYTES_MAX < BATCH_BYTES_MAX,
        "any registration fits a batch"
    );
    assert!(
        BATCH_BYTES_MAX + BEATS_MAX * BEAT_BYTES_MAX + (64 << 10) < EXCHANGE_BYTES_MAX,
        "a full batch with heartbeats and reports fits an exchange"
    );
    assert!(DATA_BYTES_MAX < FRAME_BYTES_MAX, "any call fits a frame");
    assert!(WINDOW <= STREAM_RESULTS_MAX, "every unanswered call is remembered");
    assert!(WINDOW < ONCE_KEPT_MAX, "a window does not push its own calls out");
    assert!(
        DOWN_BYTES_MAX + QUESTIONS_MAX * QUESTION_TARGETS_MAX * 32 + (64 << 10)
            < EXCHANGE_BYTES_MAX,
        "an answer fits what a child reads"
    );
};
