"""The machine of one session: what is held, sent again, resumed, told. Pure."""
