"""A data set in the layouts of other trainers."""

from longvila.data.views.building import ViewReport
from longvila.data.views.export import VIEWS, ViewName, export_view

__all__ = ["VIEWS", "ViewName", "ViewReport", "export_view"]
