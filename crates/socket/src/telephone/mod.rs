//! What a telephone call needs besides its media: the answer to Twilio's question what to do, and proof that it was
//! Twilio who asked.

mod call_token;
mod public_url;
mod signature;
mod twiml;

pub use call_token::{
    CallLeg, CallNonce, CallTokenKey, InvalidCallToken, MAX_REDEEMED, RETURN, RedeemedTokens, TOKEN_LIFE, Visit,
    returning,
};
pub use public_url::{Forwarded, InvalidOrigin, PublicOrigin, Scheme};
pub use signature::{InvalidSignature, TwilioToken, form_parameters};
pub use twiml::{MAX_PARAMETER, Twiml, TwimlError, hang_up};
