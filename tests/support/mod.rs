pub(crate) mod canonical;
