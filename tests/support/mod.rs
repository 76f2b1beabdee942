//! What the tests share: judges that are not walfix, damages, and knobs.
#![allow(dead_code, unreachable_pub, reason = "each test binary is a crate of its own and uses a part of it")]

pub mod canonical;
pub mod damage;
pub mod pristine;

/// Seeds to try: `WALFIX_SEEDS` of them, or `count`, from `WALFIX_FIRST_SEED` on, or 0.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let knob = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect(name));
    let first = knob("WALFIX_FIRST_SEED").unwrap_or(0);
    first..first + knob("WALFIX_SEEDS").unwrap_or(count)
}
