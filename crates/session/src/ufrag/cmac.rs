//! AES-CMAC (RFC 4493) with a 128-bit key: a pseudo-random function of a message of any length.
//!
//! Blocks are numbers, the first byte the highest: what a message hides of a block is then a mask, and nothing here can be
//! out of bounds.

use aes::Aes128Enc;
use aes::cipher::{BlockEncrypt as _, KeyInit as _};

/// One AES key, for encryption alone.
#[derive(Clone)]
pub(super) struct Block(Aes128Enc);

impl Block {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self(Aes128Enc::new(&key.into()))
    }

    /// AES-128 of one block.
    pub(super) fn encrypt(&self, block: u128) -> u128 {
        let mut bytes = block.to_be_bytes().into();
        self.0.encrypt_block(&mut bytes);
        u128::from_be_bytes(bytes.into())
    }
}

/// A key of AES-CMAC, with the two subkeys that its last block is made distinct by.
#[derive(Clone)]
pub(super) struct Cmac {
    cipher: Block,
    /// `K1`: for a last block that is whole.
    whole: u128,
    /// `K2`: for one that had to be filled.
    filled: u128,
}

impl Cmac {
    pub(super) fn new(key: [u8; 16]) -> Self {
        let cipher = Block::new(key);
        let whole = double(cipher.encrypt(0));
        Self { cipher, whole, filled: double(whole) }
    }

    /// The tag of a message that is one block: a single encryption.
    pub(super) fn of_block(&self, block: u128) -> u128 {
        self.cipher.encrypt(block ^ self.whole)
    }

    /// The tag of a message: an encryption for each 16 bytes of it, and one of an empty message.
    pub(super) fn of(&self, message: &[u8]) -> u128 {
        let (blocks, rest) = message.as_chunks::<16>();
        let (before, last) = match blocks.split_last() {
            Some((last, before)) if rest.is_empty() => (before, u128::from_be_bytes(*last) ^ self.whole),
            _ => {
                let mut last = [0; 16];
                for (byte, of_rest) in last.iter_mut().zip(rest.iter().chain(&[0x80])) {
                    *byte = *of_rest;
                }
                (blocks, u128::from_be_bytes(last) ^ self.filled)
            }
        };
        let state = before.iter().fold(0, |state, block| self.cipher.encrypt(state ^ u128::from_be_bytes(*block)));
        self.cipher.encrypt(state ^ last)
    }
}

/// Multiplication by `x` in GF(2^128), in the same time for every number.
const fn double(number: u128) -> u128 {
    (number << 1) ^ (0x87 & (number >> 127).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4493 section 4.
    const KEY: u128 = 0x2b7e1516_28aed2a6_abf71588_09cf4f3c;
    const MESSAGE: [u128; 4] = [
        0x6bc1bee2_2e409f96_e93d7e11_7393172a,
        0xae2d8a57_1e03ac9c_9eb76fac_45af8e51,
        0x30c81c46_a35ce411_e5fbc119_1a0a52ef,
        0xf69f2445_df4f9b17_ad2b417b_e66c3710,
    ];

    #[test]
    fn tags_are_those_of_the_rfc() {
        let cmac = Cmac::new(KEY.to_be_bytes());
        let message = MESSAGE.map(u128::to_be_bytes);
        #[track_caller]
        fn check(found: u128, expected: u128) {
            assert_eq!(found, expected, "{found:032x}");
        }
        check(cmac.whole, 0xfbeed618_35713366_7c85e08f_7236a8de);
        check(cmac.filled, 0xf7ddac30_6ae266cc_f90bc11e_e46d513b);
        for (len, expected) in [
            (0, 0xbb1d6929_e9593728_7fa37d12_9b756746),
            (16, 0x070a16b4_6b4d4144_f79bdd9d_d04a287c),
            (40, 0xdfa66747_de9ae630_30ca3261_1497c827),
            (64, 0x51f0bebf_7e3b9d92_fc497417_79363cfe),
        ] {
            check(cmac.of(&message.as_flattened()[..len]), expected);
        }
        check(cmac.of_block(MESSAGE[0]), cmac.of(&message[0]));
    }
}
