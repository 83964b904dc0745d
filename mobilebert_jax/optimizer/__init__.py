"""Update rules, their rates over time, and which parameters they treat differently."""
