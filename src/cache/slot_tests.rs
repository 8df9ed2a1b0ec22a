//! Packing loses nothing, and rounding never lets a key live longer.

use super::*;

fn slot(dies_at: Option<i64>) -> KeySlot {
    let dies_at = dies_at.map(Timestamp::from_unix_ms);
    let created_at = Timestamp::from_unix_ms(1_700_000_000_900);
    let (profile, environment) = (ProfileId::from_bits(5), EnvIx::from_bits(1));
    KeySlot::new(KeyId::from_bytes([9; 16]), profile, None, environment, KeyKind::Secret, dies_at, created_at)
}

#[test]
fn what_is_written_is_read_back_to_the_last_bit() {
    let stored = StoredSlot::default();
    assert_eq!(stored.read(), None, "a fresh slot is vacant");
    let hash = KeyHash::from_bytes(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    for kind in KeyKind::ALL {
        for (active, revoked) in [(true, false), (false, false), (true, true), (false, true)] {
            for (profile, owner, environment) in [(0, 0, 0), (0xff_ffff, 0xff_ffff, 0xfff), (1, 2, 3)] {
                let written = KeySlot {
                    profile: ProfileId::from_bits(profile),
                    owner: OwnerIx::from_bits(owner),
                    environment: EnvIx::from_bits(environment),
                    kind,
                    active,
                    revoked,
                    ..slot(Some(i64::MAX))
                };
                stored.write(&hash, &written);
                assert_eq!(stored.read(), Some(written));
                assert!(stored.holds(&hash));
            }
        }
    }
    stored.vacate();
    assert_eq!(stored.read(), None);
}

#[test]
fn a_hash_that_differs_in_one_bit_is_not_held() {
    let stored = StoredSlot::default();
    stored.write(&KeyHash::from_bytes([0xaa; 32]), &slot(None));
    for byte in 0..32 {
        let mut other = [0xaa; 32];
        other[byte] ^= 1;
        assert!(!stored.holds(&KeyHash::from_bytes(other)), "byte {byte}");
    }
}

#[test]
fn expiry_is_never_late() {
    for dies_at in [1, 999, 1_000, 1_001, 1_999, 1_700_000_000_001, i64::MAX, -5, 0] {
        let slot = slot(Some(dies_at));
        assert!(slot.is_past_its_time(Timestamp::from_unix_ms(dies_at.max(1_000))), "{dies_at} is refused on time");
        if dies_at > 1_000 && dies_at < i64::MAX {
            let a_second_before = Timestamp::from_unix_ms(dies_at - 1_000);
            assert!(!slot.is_past_its_time(a_second_before), "{dies_at} is at most a second early");
        }
    }
    assert!(!slot(None).is_past_its_time(Timestamp::from_unix_ms(i64::MAX)));
}

#[test]
fn the_reason_for_a_refusal_is_the_same_as_the_records() {
    let now = Timestamp::from_unix_seconds(2_000);
    let [past, future] = [Some(1_999_000), Some(2_001_000)];
    let on = |revoked, active, dies_at| KeySlot { revoked, active, ..slot(dies_at) }.state(now);
    assert_eq!(on(false, true, future), KeyState::Active);
    assert_eq!(on(false, false, future), KeyState::Disabled);
    assert_eq!(on(false, false, past), KeyState::Expired);
    assert_eq!(on(true, false, past), KeyState::Revoked);
    assert_eq!(on(true, true, None), KeyState::Revoked);
}
