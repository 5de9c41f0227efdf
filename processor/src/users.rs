//! The users of one hour in one partition: a set, exact, as long as it may be; then a sketch, for good.

use std::collections::BTreeMap;

use millrace_contracts::{Exactness, SketchSwitch, UserHash, UserSketch};
use millrace_log::StageError;

use crate::scratch::{Extent, Scratch};
use crate::set::UserSet;
use crate::sketch::{Registers, rank};
use crate::sorted::Run;

/// What a register that changed takes in memory, about.
const CHANGED_BYTES: usize = 8;

/// The users of one hour.
#[derive(Debug)]
pub(crate) enum Users {
    Set(Set),
    Sketch(Sketch),
}

/// Every user: those on disk and those in memory, disjoint. Nothing is on disk while an hour is hot.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) run: Option<Run>,
    pub(crate) delta: UserSet,
}

/// Registers of a sketch. What they stood for when the set became one is in the hour's totals.
#[derive(Debug)]
pub(crate) struct Sketch(Place);

#[derive(Debug)]
enum Place {
    Memory(Registers),
    /// Packed on disk; what changed since it was written, in memory.
    Disk {
        extent: Extent,
        len: usize,
        changed: BTreeMap<u16, u8>,
    },
}

impl Default for Users {
    fn default() -> Self {
        Self::Set(Set::default())
    }
}

impl Users {
    pub(crate) fn exactness(&self) -> Exactness {
        match self {
            Self::Set(_) => Exactness::Exact,
            Self::Sketch(_) => Exactness::Approximate,
        }
    }

    /// Bytes of memory that [`Users::spill`] would save, when that is worth the writing: what is on disk is written again
    /// with it.
    pub(crate) fn gain(&self, least_users: usize, least_share: usize) -> Option<usize> {
        match self {
            Self::Set(Set { run, delta }) => {
                let least = least_users.max(run.as_ref().map_or(0, Run::len) / least_share);
                (delta.len() > 0 && delta.len() >= least).then(|| delta.memory())
            }
            Self::Sketch(sketch) => sketch.in_memory().then_some(Registers::MEMORY),
        }
    }

    /// Moves what is in memory to disk.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        match self {
            Self::Set(set) => set.spill(scratch),
            Self::Sketch(sketch) => sketch.spill(scratch),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Set(Set { run, delta }) => delta.memory() + run.as_ref().map_or(0, Run::memory),
            Self::Sketch(Sketch(Place::Memory(_))) => Registers::MEMORY,
            Self::Sketch(Sketch(Place::Disk { changed, .. })) => changed.len() * CHANGED_BYTES,
        }
    }

    /// Gives what is on disk back.
    pub(crate) fn give_back(self, scratch: &mut Scratch) {
        match self {
            Self::Set(Set { run: Some(run), .. }) => run.give_back(scratch),
            Self::Sketch(Sketch(Place::Disk { extent, .. })) => scratch.give_back(extent),
            Self::Set(_) | Self::Sketch(_) => {}
        }
    }
}

impl Set {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.delta.len() + self.run.as_ref().map_or(0, Run::len)
    }

    /// True when the user is new.
    #[inline]
    pub(crate) fn insert(&mut self, user: UserHash, scratch: &Scratch) -> Result<bool, StageError> {
        match &self.run {
            None => Ok(self.delta.insert(user)),
            Some(run) => Ok(!self.delta.contains(user) && !run.contains(scratch, user)? && self.delta.insert(user)),
        }
    }

    /// Every user by rising hash, in order.
    pub(crate) fn for_each(&self, scratch: &Scratch, mut each: impl FnMut(UserHash)) -> Result<(), StageError> {
        let mut all = Merge::new(self);
        while let Some(user) = all.next(scratch)? {
            each(UserHash::from_raw(user));
        }
        Ok(())
    }

    /// Moves the users in memory to disk.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        let mut all = Merge::new(self);
        let run = Run::write(scratch, self.len(), |scratch| all.next(scratch))?;
        self.delta = UserSet::default();
        if let Some(old) = self.run.replace(run) {
            old.give_back(scratch);
        }
        Ok(())
    }

    /// The sketch of these users, and what it stands for.
    pub(crate) fn to_sketch(&self, scratch: &Scratch) -> Result<(Sketch, SketchSwitch), StageError> {
        let mut registers = Registers::default();
        if let Some(run) = &self.run {
            let mut cursor = run.cursor();
            while let Some(user) = cursor.next(scratch)? {
                registers.add(UserHash::from_raw(user));
            }
        }
        self.delta.iter().for_each(|user| registers.add(user));
        let sketched = SketchSwitch { exact_users: self.len() as u64, estimate: registers.estimate() };
        Ok((Sketch(Place::Memory(registers)), sketched))
    }
}

/// Run and delta as one rising sequence.
struct Merge<'a> {
    run: Option<crate::sorted::Cursor<'a>>,
    /// The hash of the run that comes next.
    head: Option<u64>,
    delta: std::iter::Peekable<std::vec::IntoIter<u64>>,
}

impl<'a> Merge<'a> {
    fn new(set: &'a Set) -> Self {
        let delta = set.delta.sorted().into_iter().peekable();
        Self { run: set.run.as_ref().map(Run::cursor), head: None, delta }
    }

    fn next(&mut self, scratch: &Scratch) -> Result<Option<u64>, StageError> {
        if self.head.is_none()
            && let Some(run) = &mut self.run
        {
            self.head = run.next(scratch)?;
        }
        Ok(match (self.head, self.delta.peek()) {
            (Some(head), Some(&delta)) if delta < head => self.delta.next(),
            (None, _) => self.delta.next(),
            (Some(_), _) => self.head.take(),
        })
    }
}

impl Sketch {
    /// Takes a user in. The register that rose and what it was, if one did.
    pub(crate) fn insert(&mut self, user: UserHash, scratch: &Scratch) -> Result<Option<(u16, u8)>, StageError> {
        let (number, value) = rank(user);
        self.raise(number, value, scratch)
    }

    /// See [`Sketch::insert`].
    pub(crate) fn raise(&mut self, number: u16, value: u8, scratch: &Scratch) -> Result<Option<(u16, u8)>, StageError> {
        match &mut self.0 {
            Place::Memory(registers) => {
                let before = registers.get(number);
                Ok(registers.raise(number, value).then_some((number, before)))
            }
            Place::Disk { extent, len, changed } => {
                let before = match changed.get(&number) {
                    Some(&known) => known,
                    None => register_on_disk(scratch, extent, *len, number)?,
                };
                let raised = before < value;
                if raised {
                    changed.insert(number, value);
                }
                Ok(raised.then_some((number, before)))
            }
        }
    }

    /// Takes the changes of a step back, given newest last.
    pub(crate) fn undo(&mut self, raised: &[(u16, u8)]) {
        match &mut self.0 {
            Place::Memory(registers) => raised.iter().rev().for_each(|&(number, before)| registers.set(number, before)),
            // What was changed before the step was written before it.
            Place::Disk { changed, .. } => changed.clear(),
        }
    }

    /// The number of different users, about.
    pub(crate) fn estimate(&self, scratch: &Scratch) -> Result<u64, StageError> {
        match &self.0 {
            Place::Memory(registers) => Ok(registers.estimate()),
            Place::Disk { .. } => Ok(self.registers(scratch)?.estimate()),
        }
    }

    pub(crate) fn in_memory(&self) -> bool {
        matches!(self.0, Place::Memory(_))
    }

    /// The registers as they stand.
    pub(crate) fn registers(&self, scratch: &Scratch) -> Result<Registers, StageError> {
        match &self.0 {
            Place::Memory(registers) => Ok(registers.clone()),
            Place::Disk { extent, len, changed } => {
                let mut packed = vec![0; *len];
                scratch.read(extent, 0, &mut packed)?;
                let mut registers = Registers::default();
                let stored = UserSketch::unpack(&packed).map_err(|error| StageError::Unavailable(error.to_string()))?;
                stored
                    .chain(changed.iter().map(|(&number, &value)| (number, value)))
                    .for_each(|(number, value)| registers.set(number, value));
                Ok(registers)
            }
        }
    }

    /// Moves the registers to disk, and what changed since they were there.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        if matches!(&self.0, Place::Disk { changed, .. } if changed.is_empty()) {
            return Ok(());
        }
        let mut packed = Vec::new();
        UserSketch::pack(self.registers(scratch)?.as_array(), &mut packed);
        let extent = scratch.take(packed.len())?;
        scratch.write(&extent, 0, &packed)?;
        let place = Place::Disk { extent, len: packed.len(), changed: BTreeMap::new() };
        if let Place::Disk { extent, .. } = std::mem::replace(&mut self.0, place) {
            scratch.give_back(extent);
        }
        Ok(())
    }
}

fn register_on_disk(scratch: &Scratch, extent: &Extent, len: usize, number: u16) -> Result<u8, StageError> {
    if len == UserSketch::REGISTERS {
        let mut register = [0];
        scratch.read(extent, usize::from(number), &mut register)?;
        return Ok(register[0]);
    }
    let mut packed = [0; UserSketch::REGISTERS];
    let packed = &mut packed[..len];
    scratch.read(extent, 0, packed)?;
    let triples = packed.as_chunks::<3>().0;
    let found = triples.binary_search_by_key(&number, |triple| u16::from_le_bytes([triple[0], triple[1]]));
    Ok(found.map_or(0, |at| triples[at][2]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn hash(user: u32) -> UserHash {
        UserHash::of(&user.to_string())
    }

    proptest! {
        #[test]
        fn it_does_not_matter_what_is_on_disk(users in prop::collection::vec((0..600_u32, 0..20_u8), 1..800)) {
            let mut scratch = Scratch::new(PathBuf::new());
            let (mut set, mut all) = (Set::default(), HashSet::new());
            for &(user, chance) in &users {
                prop_assert_eq!(set.insert(hash(user), &scratch).unwrap(), all.insert(user));
                if chance == 0 {
                    set.spill(&mut scratch).unwrap();
                }
            }
            prop_assert_eq!(set.len(), all.len());
            let mut sorted = Vec::new();
            set.for_each(&scratch, |user| sorted.push(user.get())).unwrap();
            prop_assert!(sorted.is_sorted() && sorted.len() == all.len());

            let ((mut spilled, sketched), mut sketch) = (set.to_sketch(&scratch).unwrap(), Set::default().to_sketch(&scratch).unwrap().0);
            for &(user, chance) in &users {
                let _ = sketch.insert(hash(user), &scratch).unwrap();
                if chance == 0 {
                    sketch.spill(&mut scratch).unwrap();
                }
                let again = spilled.insert(hash(user), &scratch).unwrap();
                prop_assert_eq!(again, None);
            }
            prop_assert_eq!(sketch.estimate(&scratch).unwrap(), sketched.estimate);
            prop_assert_eq!(sketched.exact_users, all.len() as u64);
            let (one, other) = (sketch.registers(&scratch).unwrap(), spilled.registers(&scratch).unwrap());
            prop_assert!(one.as_array() == other.as_array());

            // A step, taken back.
            for (mut sketch, disk) in [(sketch, true), (spilled, false)] {
                if disk {
                    sketch.spill(&mut scratch).unwrap();
                }
                let before = sketch.registers(&scratch).unwrap();
                let raised: Vec<_> = (1_000..9_000).filter_map(|user| sketch.insert(hash(user), &scratch).unwrap()).collect();
                prop_assert!(sketch.estimate(&scratch).unwrap() > before.estimate() && !raised.is_empty());
                sketch.undo(&raised);
                prop_assert!(sketch.registers(&scratch).unwrap().as_array() == before.as_array());
            }
        }
    }
}
