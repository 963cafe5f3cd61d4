//! Passwords as argon2id keeps them, in the notation of PHC strings.

use argon2::password_hash::rand_core::{OsRng, RngCore as _};
use argon2::password_hash::{Output, PasswordHash, PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// The only algorithm.
const ALGORITHM: &str = "argon2id";
/// What a line of a file may ask of the machine for one password: 256 MiB, and so many passes over it.
const MEMORY_KIB_MAX: u32 = 262_144;
const PASSES_MAX: u32 = 64;

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// What OWASP recommends.
    fn default() -> Self {
        Self {
            memory_kib: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
        }
    }
}

/// Hashes a new password.
///
/// # Errors
/// In words, when the cost is not allowed.
pub fn make(password: &[u8], cost: Cost) -> Result<String, String> {
    let params = Params::new(cost.memory_kib, cost.passes, Params::DEFAULT_P_COST, None)
        .map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2
        .hash_password(password, &SaltString::generate(&mut OsRng))
        .map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

/// A password that was hashed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hash {
    params: Params,
    salt: Box<[u8]>,
    output: Output,
}

impl Hash {
    /// Reads a PHC string.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHash::new(text).map_err(|error| format!("no PHC string ({error})"))?;
        if hash.algorithm.as_str() != ALGORITHM {
            return Err(format!("{} instead of {ALGORITHM}", hash.algorithm));
        }
        if hash.version.is_some_and(|version| version != 19) {
            return Err("another version of argon2 than 19".to_owned());
        }
        let params = Params::try_from(&hash).map_err(|error| error.to_string())?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(format!(
                "a password of m={}, t={}; allowed are m={MEMORY_KIB_MAX} and t={PASSES_MAX} at most",
                params.m_cost(),
                params.t_cost()
            ));
        }
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err("no salt or no hash".to_owned());
        };
        let mut bytes = [0; 64];
        let salt = salt
            .decode_b64(&mut bytes)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            params,
            salt: salt.into(),
            output,
        })
    }

    /// One that costs the same and that no password has.
    pub(super) fn like(&self) -> Self {
        let mut bytes = vec![0; self.output.len()];
        OsRng.fill_bytes(&mut bytes);
        let mut salt = vec![0; self.salt.len()];
        OsRng.fill_bytes(&mut salt);
        Self {
            params: self.params.clone(),
            salt: salt.into(),
            output: Output::new(&bytes).unwrap_or(self.output),
        }
    }

    /// Whether it is that password's. Takes as long for one that it is as for one that it is not.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let mut bytes = vec![0; self.output.len()];
        let hashed = argon2.hash_password_into(password, &self.salt, &mut bytes);
        // `Output` compares in constant time.
        hashed.is_ok() && Output::new(&bytes).is_ok_and(|output| output == self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 16,
        passes: 1,
    };

    #[test]
    fn a_password_is_its_own_hashs_and_no_others() {
        let text = make(b"hunter2", CHEAP).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=16,t=1,p=1$"), "{text}");
        assert_ne!(text, make(b"hunter2", CHEAP).unwrap(), "the salt is new");
        let hash = Hash::parse(&text).unwrap();
        assert!(hash.is_of(b"hunter2") && !hash.is_of(b"hunter3") && !hash.is_of(b""));
        let like = hash.like();
        assert!(!like.is_of(b"hunter2") && like.params == hash.params);
    }

    /// The example of the reference implementation's own test, so that files of other programs are understood.
    #[test]
    fn what_the_reference_implementation_wrote_is_understood() {
        let hash = Hash::parse(
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        )
        .unwrap();
        assert_eq!(
            (hash.params.m_cost(), &*hash.salt),
            (65_536, &b"somesalt"[..])
        );
        assert!(hash.is_of(b"password"));
    }

    #[test]
    fn what_is_no_argon2id_or_would_cost_too_much_is_refused() {
        for (text, said) in [
            ("hunter2", "PHC"),
            ("$6$salt$hash", ""),
            (
                "$argon2i$v=19$m=16,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "argon2i",
            ),
            (
                "$argon2id$v=16$m=16,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "19",
            ),
            (
                "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "at most",
            ),
            ("$argon2id$v=19$m=16,t=1,p=1$c29tZXNhbHQ", "hash"),
        ] {
            let error = Hash::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
