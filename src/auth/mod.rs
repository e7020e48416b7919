//! stub
use crate::{config, protocol::UserId};
/// stub
#[derive(Debug, Clone)]
pub struct Identity { /// stub
 pub user: UserId, /// stub
 pub expires_at: u64 }
/// stub
#[derive(Debug, Default)]
pub struct Offer { /// stub
 pub token: Option<String>, /// stub
 pub protocols: Vec<String>, /// stub
 pub bearer_only: bool }
/// stub
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct AuthError;
/// stub
pub fn offer(_: &http::HeaderMap) -> Result<Offer, AuthError> { Ok(Offer::default()) }
/// stub
#[derive(Debug)]
pub struct Authenticator;
impl Authenticator {
    /// stub
    pub fn new(_: &config::Auth) -> Result<Option<Self>, AuthError> { Ok(None) }
    /// stub
    pub fn verify(&self, _: &str) -> Result<Identity, AuthError> { Err(AuthError) }
}
/// stub
pub fn mint(_: &config::Auth, _: &str, _: std::time::Duration) -> Result<String, AuthError> { Err(AuthError) }
/// stub
#[derive(Debug)]
pub struct Key;
impl Key {
 /// stub
 pub fn load(_: &config::Auth) -> Result<Self, KeyError> { Ok(Self) } }
/// stub
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
 /// stub
 #[error("x")] NoSource,
 /// stub
 #[error("x")] ManySources(u8),
}
impl KeyError {
 /// stub
 pub fn key(&self) -> &'static str { "auth.secret" } }
