"""Reads what was filled into a PDF's form: one line a field, by its label or its name.

PDFium draws the fields but counts them as no text of the page.  pypdfium2 has
only the C functions for them, without annotations.
"""

import ctypes
from collections.abc import Callable
from typing import Any, cast

from pypdfium2 import raw  # pyright: ignore[reportMissingTypeStubs]

_pdfium: Any = cast("Any", raw)

_PASSWORD = 1 << 13
"""The flag of a text field that shows no characters."""
_YES, _NO = "yes", "no"


def read(form: object, page: object) -> str:
    """The fields of a page that have a name and a value, in the order of the file."""
    values: dict[str, str] = {}
    for index in range(_pdfium.FPDFPage_GetAnnotCount(page)):
        annotation = _pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            if _pdfium.FPDFAnnot_GetSubtype(annotation) == _pdfium.FPDF_ANNOT_WIDGET:
                _take(form, annotation, values)
        finally:
            _pdfium.FPDFPage_CloseAnnot(annotation)
    return "\n".join(f"{name}: {value}" for name, value in values.items())


def _take(form: object, widget: object, values: dict[str, str]) -> None:
    """A field may have several widgets: one that is ticked counts, else the first."""
    name = _text_of(_pdfium.FPDFAnnot_GetFormFieldAlternateName, form, widget)
    name = name or _text_of(_pdfium.FPDFAnnot_GetFormFieldName, form, widget)
    value = _value(form, widget)
    if name and value and (name not in values or values[name] == _NO):
        values[name] = value


def _value(form: object, widget: object) -> str:
    match _pdfium.FPDFAnnot_GetFormFieldType(form, widget):
        case _pdfium.FPDF_FORMFIELD_CHECKBOX:
            return _YES if _pdfium.FPDFAnnot_IsChecked(form, widget) else _NO
        case _pdfium.FPDF_FORMFIELD_RADIOBUTTON:
            if not _pdfium.FPDFAnnot_IsChecked(form, widget):
                return ""
            return _text_of(_pdfium.FPDFAnnot_GetFormFieldExportValue, form, widget)
        case _pdfium.FPDF_FORMFIELD_LISTBOX:
            return ", ".join(_selected(form, widget))
        case _pdfium.FPDF_FORMFIELD_TEXTFIELD | _pdfium.FPDF_FORMFIELD_COMBOBOX:
            if _pdfium.FPDFAnnot_GetFormFieldFlags(form, widget) & _PASSWORD:
                return ""
            return _text_of(_pdfium.FPDFAnnot_GetFormFieldValue, form, widget)
        case _:  # buttons and signatures hold no words
            return ""


def _selected(form: object, widget: object) -> list[str]:
    options = range(_pdfium.FPDFAnnot_GetOptionCount(form, widget))
    return [
        _text_of(_pdfium.FPDFAnnot_GetOptionLabel, form, widget, option)
        for option in options
        if _pdfium.FPDFAnnot_IsOptionSelected(form, widget, option)
    ]


def _text_of(read: Callable[..., int], *about: object) -> str:
    """The text that PDFium writes as UTF-16 with a zero at its end, on one line."""
    size = read(*about, None, 0)
    if size <= 2:
        return ""
    written = ctypes.create_string_buffer(size)
    read(*about, ctypes.cast(written, ctypes.POINTER(ctypes.c_ushort)), size)
    return " ".join(written.raw[: size - 2].decode("utf-16-le", "replace").split())
