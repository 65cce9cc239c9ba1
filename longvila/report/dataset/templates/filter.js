(function () {
  "use strict";
  var box = document.getElementById("rejection-filter");
  var shown = document.getElementById("rejection-count");
  var rows = Array.prototype.slice.call(document.querySelectorAll("#rejection-rows tr"));
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  function apply() {
    var words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    var count = 0;
    rows.forEach(function (row, i) {
      var fits = words.every(function (word) { return texts[i].indexOf(word) >= 0; });
      row.hidden = !fits;
      count += fits ? 1 : 0;
    });
    shown.textContent = count + " of " + rows.length + " shown";
  }
  box.addEventListener("input", apply);
  box.parentNode.hidden = false;
  apply();
})();
