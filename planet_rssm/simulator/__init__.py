"""dm_control's own physics: as a model to plan in, and as the truth beside a learned one."""
