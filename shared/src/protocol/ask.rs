//! A question to the witness that is asked until it is answered.

use super::{WitnessReply, WitnessRequest};

#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub request: WitnessRequest,
    pub asked_us: u64,
}

impl Question {
    /// True if the reply answers this question and not an earlier one.
    pub fn answered_by(&self, reply: &WitnessReply) -> bool {
        self.request == reply.request
    }
}
