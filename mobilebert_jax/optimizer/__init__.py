"""Update rules, learning rate schedules, and which parameters they treat differently."""
