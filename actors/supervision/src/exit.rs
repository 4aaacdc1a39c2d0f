//! How a child ended.

/// How a child ended; decides together with its [`Restart`](crate::Restart) what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It stopped of its own will, or was told to and did.
    Normal,
    /// It gave up for a reason it names (see [`Lifeline::fail`](crate::Lifeline::fail)).
    Failed(String),
    /// It panicked; the text is the panic's.
    Panicked(String),
    /// It did not stop in time and was cut off.
    CutOff,
    /// A supervisor whose children needed more restarts than its intensity allows.
    Escalated,
}

impl Exit {
    /// Whether a transient child is restarted after this exit.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Exit::Normal)
    }

    /// What it said for itself, if anything.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Exit::Failed(reason) | Exit::Panicked(reason) => Some(reason),
            Exit::Normal | Exit::CutOff | Exit::Escalated => None,
        }
    }

    /// One word for metrics labels.
    pub fn label(&self) -> &'static str {
        match self {
            Exit::Normal => "normal",
            Exit::Failed(_) => "failed",
            Exit::Panicked(_) => "panicked",
            Exit::CutOff => "cut_off",
            Exit::Escalated => "escalated",
        }
    }
}
