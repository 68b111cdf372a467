"""viser's elements for the fields of a form."""

from typing import Any

from nerfstudio_prune.core.form import FormField


def add_element(gui: Any, field: FormField, value: Any) -> Any:
    """Adds the element of a field to the current container.

    Args:
        gui: viser's interface to its elements.
        field: The field.
        value: What it shows at first.
    """
    name, hint = field.name, field.hint
    if field.choices:
        return gui.add_dropdown(name, list(field.choices), value, hint=hint)
    if isinstance(field.value, bool):
        return gui.add_checkbox(name, value, hint=hint)
    if field.slider:
        return gui.add_slider(name, field.low, field.high, field.step, value, hint=hint)
    return gui.add_number(name, value, min=field.low, max=field.high, step=field.step, hint=hint)
